package federation

import (
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/federation/hub"
	"github.com/ententehq/entente/federation/invitation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// surviveRestore keeps what an operator's restore must not take back: a bundle, whose older keys a peer may have
// revoked and whose endpoint may authenticate only by newer ones, and a suspension. Relationships themselves are
// restored from the snapshot.
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
			snapshot := proto.CloneOf(row.Value)
			row.Value.Agreement = was.Value.GetAgreement() // consents are not taken back
			if was.Value.GetSuspended() {
				row.Value.Suspended, row.Value.Suspension = true, was.Value.GetSuspension()
			}
			row.Value.Generation = raftstore.NextGeneration(tx,
				max(row.Value.GetGeneration(), was.Value.GetGeneration()))
			switch {
			case relationship.SameSettings(row.Value, was.Value):
				row.Value.SettingsGeneration = was.Value.GetSettingsGeneration()
			case !relationship.SameSettings(row.Value, snapshot):
				row.Value.SettingsGeneration = raftstore.NextGeneration(tx, was.Value.GetSettingsGeneration())
			}
			row.Value.Validity, row.Value.Alarms = was.Value.GetValidity(), was.Value.GetAlarms()
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

// keepHistory keeps the history of a bundle. A history that only the snapshot has stays as it is.
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
