package hub

import (
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// SurviveRestore keeps attestations through a restore, like other foreign bundles, because older keys may have been
// revoked since the snapshot.
func SurviveRestore(before, restored *raftstore.View, tx *raftstore.Tx) error {
	for row, err := range relationship.HubBundles.All(before, "") {
		if err != nil {
			return err
		}
		is, _, err := relationship.HubBundles.Get(restored, row.Key)
		if err != nil {
			return err
		}
		if _, found, err := relationship.Relationships.Get(restored, row.Value.GetHub()); err != nil {
			return err
		} else if found && !proto.Equal(is.Value, row.Value) {
			if err := relationship.HubBundles.Put(tx, row.Key, row.Value); err != nil {
				return err
			}
		}
	}
	return deleteWithdrawn(before, restored, tx)
}

// deleteWithdrawn deletes the attestations of the snapshot that hubs, under relationships that still exist, have
// withdrawn since.
func deleteWithdrawn(before, restored *raftstore.View, tx *raftstore.Tx) error {
	for row, err := range relationship.HubBundles.All(restored, "") {
		if err != nil {
			return err
		}
		_, attested, err := relationship.HubBundles.Get(before, row.Key)
		if err != nil {
			return err
		}
		_, found, err := relationship.Relationships.Get(before, row.Value.GetHub())
		if err != nil {
			return err
		}
		if found && !attested {
			if err := relationship.HubBundles.Delete(tx, row.Key); err != nil {
				return err
			}
		}
	}
	return nil
}
