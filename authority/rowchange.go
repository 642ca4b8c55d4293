package authority

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

// number completes the row of a new authority with what only the transaction knows: its place among the member's own,
// the rotation that it answers to, and since when what verifies it has been published.
func number(made *statev1.Authority, rows []*statev1.Authority, s Situation, action Action, newAnchor bool) *statev1.Authority {
	row := cloneAuthority(made)
	newest := newestOwn(rows, s.Member, Kind(row.GetKind()))
	row.Number = newest.GetNumber() + 1
	row.Rotation, row.Reserve, row.Held = s.Rotations.Last, s.Rotations.Reserve, action.Held
	row.AnchorRotation = newest.GetAnchorRotation()
	if newAnchor || newest == nil {
		row.AnchorRotation = s.Rotations.Anchors
	}
	row.LongestSvid = durationpb.New(s.Settings.SVIDTTL(Kind(row.GetKind())))
	row.PrepareTime = timestamppb.New(s.Now)
	ready := s.Now.Add(s.Settings.Dissemination(s.Now))
	for _, other := range rows {
		if known := timeOf(other.GetReadyTime()); sameAnchor(row, other) && known.Before(ready) {
			ready, row.PublishSequence = known, other.GetPublishSequence()
		}
	}
	row.ReadyTime = timestamppb.New(ready)
	return row
}

// fedAnchor says whether an authority's anchor was published by itself. Then the authority waits until that is known, and no
// longer.
func fedAnchor(r raftstore.Reader, td string, row *statev1.Authority) (bool, error) {
	if len(row.GetAnchors()) == 0 {
		return false, nil
	}
	anchor, ok, err := upstreamAnchors.Get(r, anchorKey(td, row.GetAnchors()[0]))
	if err != nil || !ok || !anchor.Value.GetPublished() {
		return false, err
	}
	row.PublishSequence = anchor.Value.GetPublishSequence()
	if timeOf(anchor.Value.GetReadyTime()).Before(timeOf(row.GetReadyTime())) {
		row.ReadyTime = anchor.Value.GetReadyTime()
	}
	return true, nil
}

// change carries out an action on an authority that is there.
func change(tx *raftstore.Tx, td string, action Action, settings Settings, now time.Time) error {
	key := authorityKey(td, action.ID)
	if action.Do == End {
		return authorities.Delete(tx, key)
	}
	row, ok, err := authorities.Get(tx, key)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%s authority %s of %s: it is not there", action.Do, action.ID, td)
	}
	if action.Do == Revoke && Kind(row.Value.GetKind()) == X509 && !row.Value.GetUpstreamAnchor() {
		// Whoever has the member's keys has that of its root too.
		if err := revokeAnchor(tx, row.Value, now); err != nil {
			return err
		}
	}
	if err := move(row.Value, action.Do, settings, now); err != nil {
		return fmt.Errorf("authority %s of %s: %w", action.ID, td, err)
	}
	if State(row.Value.GetState()).Distrusted() {
		if err := remember(tx, row.Value, now); err != nil {
			return err
		}
	}
	return authorities.Put(tx, key, row.Value)
}

// move takes an authority to its next state.
func move(a *statev1.Authority, verb Verb, settings Settings, now time.Time) error {
	switch verb {
	case Activate:
		a.State = statev1.AuthorityState_AUTHORITY_STATE_ACTIVE
		a.ActivateTime = timestamppb.New(now)
		a.LongestSvid = durationpb.New(max(a.GetLongestSvid().AsDuration(), settings.SVIDTTL(Kind(a.GetKind()))))
		a.Held = false
	case Retire:
		a.State = statev1.AuthorityState_AUTHORITY_STATE_RETIRING
	case Taint:
		a.State = statev1.AuthorityState_AUTHORITY_STATE_TAINTED
		a.TaintTime = timestamppb.New(now)
	case Revoke:
		a.State = statev1.AuthorityState_AUTHORITY_STATE_REVOKED
		a.RevokeTime = timestamppb.New(now)
	default:
		return fmt.Errorf("%q is no way from one state to the next", verb)
	}
	if State(a.GetState()).Past() && a.GetRetireTime() == nil {
		a.RetireTime = timestamppb.New(now)
	}
	return nil
}

// lengthen notes with a domain's authorities that they may sign for longer from now on, so that they stay published for
// long enough. It never shortens: what was signed before keeps its life.
func lengthen(tx *raftstore.Tx, td string, settings Settings) error {
	rows, err := listAuthorities(tx, td)
	if err != nil {
		return err
	}
	for _, row := range rows {
		longest := settings.SVIDTTL(Kind(row.GetKind()))
		if State(row.GetState()).Past() || row.GetLongestSvid().AsDuration() >= longest {
			continue
		}
		row.LongestSvid = durationpb.New(longest)
		if err := authorities.Put(tx, authorityKey(td, row.GetId()), row); err != nil {
			return err
		}
	}
	return nil
}
