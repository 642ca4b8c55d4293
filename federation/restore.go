package federation

import (
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/federation/hub"
	"github.com/ententehq/entente/federation/invitation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// surviveRestore carries over what must not go back with an operator's restore: a bundle, whose older keys a peer may have revoked and
// whose endpoint may prove itself by newer ones only, and a suspension. Relationships themselves come back as the snapshot has them.
func surviveRestore(before, restored *raftstore.View, tx *raftstore.Tx) error {
	if err := invitation.SurviveRestore(before, restored, tx); err != nil {
		return err
	}
	for row, err := range relationship.Relationships.All(restored, "") {
		if err != nil {
			return err
		}
		was, found, err := relationship.Relationships.Get(before, row.Key)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		if !proto.Equal(was.Value, row.Value) {
			row.Value.Agreement = was.Value.GetAgreement() // what both sides have said is not unsaid
			row.Value.Suspended = row.Value.GetSuspended() || was.Value.GetSuspended()
			row.Value.Generation = max(row.Value.GetGeneration(), was.Value.GetGeneration()) + 1
			row.Value.Standing, row.Value.Alarms = was.Value.GetStanding(), was.Value.GetAlarms()
			if err := relationship.Relationships.Put(tx, row.Key, row.Value); err != nil {
				return err
			}
		}
		held, found, err := relationship.ForeignBundles.Get(before, row.Key)
		if err != nil {
			return err
		}
		if err := keepHistory(before, tx, row.Key); err != nil {
			return err
		}
		if found {
			if err := relationship.ForeignBundles.Put(tx, row.Key, held.Value); err != nil {
				return err
			}
		}
	}
	return hub.SurviveRestore(before, restored, tx)
}

// keepHistory keeps the history of a bundle as it was, where it is another. One that the snapshot alone has stays.
func keepHistory(before *raftstore.View, tx *raftstore.Tx, name string) error {
	was, found, err := relationship.ForeignHistory.Get(before, name)
	if err != nil || !found {
		return err
	}
	is, _, err := relationship.ForeignHistory.Get(tx, name)
	if err != nil || proto.Equal(was.Value, is.Value) {
		return err
	}
	return relationship.ForeignHistory.Put(tx, name, was.Value)
}
