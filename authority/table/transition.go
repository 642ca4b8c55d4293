package table

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/raftstore"
)

// Complete returns the row of a new authority with what only the transaction can set: its number among the member's
// authorities, the rotation that it belongs to, and when every reader can know what verifies it.
func Complete(
	made *statev1.Authority, rows []*statev1.Authority, s plan.Situation, action plan.Action, newAnchor bool,
) *statev1.Authority {
	row := cloneAuthority(made)
	newest := newestOwn(rows, s.Member, plan.Kind(row.GetKind()))
	row.Number = newest.GetNumber() + 1
	row.Rotation, row.Reserve, row.Held = s.Rotations.Last, s.Rotations.Reserve, action.Held
	row.Ahead = action.Ahead
	row.AnchorRotation = newest.GetAnchorRotation()
	if newAnchor || newest == nil {
		row.AnchorRotation = s.Rotations.Anchors
	}
	row.LongestSvid = durationpb.New(s.Settings.SVIDTTL(plan.Kind(row.GetKind())))
	row.PrepareTime = timestamppb.New(s.Now)
	ready := s.Now.Add(s.Settings.Dissemination(s.Now))
	for _, other := range rows {
		if known := TimeOf(other.GetReadyTime()); SameAnchor(row, other) && known.Before(ready) {
			ready, row.PublishSequence = known, other.GetPublishSequence()
		}
	}
	row.ReadyTime = timestamppb.New(ready)
	return row
}

// InheritAnchor reports whether the anchor of an authority was published on its own. If so, the authority waits until
// every reader can know that anchor, and no longer.
func InheritAnchor(r raftstore.Reader, td string, row *statev1.Authority) (bool, error) {
	if len(row.GetAnchors()) == 0 {
		return false, nil
	}
	anchor, ok, err := UpstreamAnchors.Get(r, AnchorKey(td, row.GetAnchors()[0]))
	if err != nil || !ok || !anchor.Value.GetPublished() {
		return false, err
	}
	row.PublishSequence = anchor.Value.GetPublishSequence()
	if TimeOf(anchor.Value.GetReadyTime()).Before(TimeOf(row.GetReadyTime())) {
		row.ReadyTime = anchor.Value.GetReadyTime()
	}
	return true, nil
}

// Apply carries out an action on an existing authority, with the records that belong to it.
func Apply(tx *raftstore.Tx, td string, action plan.Action, settings plan.Settings, now time.Time) error {
	key := AuthorityKey(td, action.ID)
	if action.Do == plan.End {
		return Authorities.Delete(tx, key)
	}
	row, ok, err := Authorities.Get(tx, key)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%s authority %s of %s: it does not exist", action.Do, action.ID, td)
	}
	if action.Do == plan.Revoke && plan.Kind(row.Value.GetKind()) == plan.X509 && !row.Value.GetUpstreamAnchor() {
		// A thief of the member's keys also has the key of its root.
		if err := revokeAnchor(tx, row.Value, now); err != nil {
			return err
		}
	}
	if err := Transition(row.Value, action.Do, settings, now); err != nil {
		return fmt.Errorf("authority %s of %s: %w", action.ID, td, err)
	}
	if plan.State(row.Value.GetState()).Distrusted() {
		if err := distrust(tx, row.Value, now); err != nil {
			return err
		}
	}
	return Authorities.Put(tx, key, row.Value)
}

// Transition moves an authority to its next state.
func Transition(a *statev1.Authority, verb plan.Verb, settings plan.Settings, now time.Time) error {
	switch verb {
	case plan.Activate:
		a.State = statev1.AuthorityState_AUTHORITY_STATE_ACTIVE
		a.ActivateTime = timestamppb.New(now)
		a.LongestSvid = durationpb.New(max(a.GetLongestSvid().AsDuration(), settings.SVIDTTL(plan.Kind(a.GetKind()))))
		a.Held, a.Ahead = false, false
	case plan.Retire:
		a.State = statev1.AuthorityState_AUTHORITY_STATE_RETIRING
	case plan.Taint:
		a.State = statev1.AuthorityState_AUTHORITY_STATE_TAINTED
		a.TaintTime = timestamppb.New(now)
	case plan.Revoke:
		a.State = statev1.AuthorityState_AUTHORITY_STATE_REVOKED
		a.RevokeTime = timestamppb.New(now)
	default:
		return fmt.Errorf("%q is not a transition between states", verb)
	}
	if plan.State(a.GetState()).Past() && a.GetRetireTime() == nil {
		a.RetireTime = timestamppb.New(now)
	}
	return nil
}

// ExtendLongestSVID records that a domain's authorities sign longer SVIDs from now on, so that they stay published for
// long enough. It never shortens: what was signed before keeps its lifetime.
func ExtendLongestSVID(tx *raftstore.Tx, td string, settings plan.Settings) error {
	rows, err := ListAuthorities(tx, td)
	if err != nil {
		return err
	}
	for _, row := range rows {
		longest := settings.SVIDTTL(plan.Kind(row.GetKind()))
		if plan.State(row.GetState()).Past() || row.GetLongestSvid().AsDuration() >= longest {
			continue
		}
		row.LongestSvid = durationpb.New(longest)
		if err := Authorities.Put(tx, AuthorityKey(td, row.GetId()), row); err != nil {
			return err
		}
	}
	return nil
}
