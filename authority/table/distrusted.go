package table

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/raftstore"
)

// The row of an authority goes with its domain, and sooner than the authority expires. That it was tainted or revoked is
// therefore written down apart from it, until it has expired: a snapshot of the time before may hold it as a good one.

// remembered is for how long after its end it is remembered that an authority was distrusted: whoever restores may have a
// clock that is off by the tolerance, and so may the leader, which forgets it.
const DistrustedKept = 2 * plan.ClockTolerance

// remember writes down that an authority is tainted or revoked.
func remember(tx *raftstore.Tx, row *statev1.Authority, now time.Time) error {
	return Distrusted.Put(tx, AuthorityKey(row.GetTrustDomain(), row.GetId()), &statev1.Distrusted{
		TrustDomain: row.GetTrustDomain(), Id: row.GetId(), State: row.GetState(), Time: timestamppb.New(now), NotAfter: row.GetNotAfter(),
	})
}

// keepDistrusted keeps a restore from forgetting what was tainted or revoked since the snapshot was made.
func KeepDistrusted(before *raftstore.View, tx *raftstore.Tx) error {
	for row, err := range Distrusted.All(before, "") {
		if err != nil {
			return err
		}
		restored, ok, err := Distrusted.Get(tx, row.Key)
		if err != nil {
			return err
		}
		if ok && restored.Value.GetState() > row.Value.GetState() {
			continue // the snapshot knows worse of it
		}
		if err := Distrusted.Put(tx, row.Key, row.Value); err != nil {
			return err
		}
	}
	return nil
}

// distrust returns what has to become of a restored authority: it is tainted or revoked as it was, and else it retires.
func RestoredVerb(tx *raftstore.Tx, td string, row *statev1.Authority) (plan.Verb, error) {
	if below, err := BelowRevoked(tx, td, row); err != nil || below {
		return plan.Revoke, err
	}
	was, ok, err := Distrusted.Get(tx, AuthorityKey(td, row.GetId()))
	if err != nil {
		return "", fmt.Errorf("look up whether authority %s of %s was revoked: %w", row.GetId(), td, err)
	}
	switch {
	case ok && plan.State(was.Value.GetState()) == plan.Revoked:
		return plan.Revoke, nil
	case ok && plan.State(was.Value.GetState()) == plan.Tainted:
		return plan.Taint, nil
	}
	return plan.Retire, nil
}

// forgetDistrusted removes what is of no more use, since the authority has expired.
func ForgetDistrusted(tx *raftstore.Tx, now time.Time) error {
	rows, err := Distrusted.List(tx, "")
	if err != nil {
		return err
	}
	for _, row := range rows {
		if now.Before(TimeOf(row.Value.GetNotAfter()).Add(DistrustedKept)) {
			continue
		}
		if err := Distrusted.Delete(tx, row.Key); err != nil {
			return err
		}
	}
	return nil
}
