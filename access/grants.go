package access

import (
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

// grants is the table of all grants.
var grants = raftstore.NewTable[*statev1.Grant]("grants")

// grantsOf reads a caller's grants from this member's state: a revocation made on another member counts here as soon
// as this one has heard of it.
func (g *Guard) grantsOf(c Caller) ([]Grant, error) {
	id, ok := c.SPIFFEID()
	if !ok {
		return nil, nil
	}
	var of []Grant
	for row, err := range grants.All(g.cfg.Store.View(), callerKeyPrefix(id)) {
		if err != nil {
			return nil, err
		}
		grant, err := grantFromRow(row.Value)
		if err != nil {
			return nil, fmt.Errorf("stored grant %q: %w", row.Key, err)
		}
		of = append(of, grant)
	}
	return of, nil
}

// RevokeDomain deletes every grant that is for one trust domain. Whoever ends a hosted domain calls it in the same
// transaction, so that a domain of that name that is made later does not begin with the grants of this one.
func RevokeDomain(tx *raftstore.Tx, td spiffeid.TrustDomain) error {
	var of []string
	for row, err := range grants.All(tx, "") {
		if err != nil {
			return fmt.Errorf("read the grants: %w", err)
		}
		if row.Value.GetTrustDomain() == td.Name() {
			of = append(of, row.Key)
		}
	}
	for _, key := range of {
		if err := grants.Delete(tx, key); err != nil {
			return fmt.Errorf("delete the grants for %s: %w", td.Name(), err)
		}
	}
	return nil
}

// revoked remembers the grants that were revoked, by their keys.
var revoked = raftstore.NewTable[*statev1.RevokedGrant]("revoked_grants")

// revokedLife is for how long a revocation is remembered: longer than anybody keeps snapshots to restore from.
const revokedLife = 2 * 366 * 24 * time.Hour

// remember notes a revocation, and forgets those that are too old to matter.
func remember(tx *raftstore.Tx, key string, by Caller, now time.Time) error {
	old, err := revoked.List(tx, "")
	if err != nil {
		return fmt.Errorf("read the revoked grants: %w", err)
	}
	for _, row := range old {
		if now.Sub(row.Value.GetRevokeTime().AsTime()) > revokedLife {
			if err := revoked.Delete(tx, row.Key); err != nil {
				return err
			}
		}
	}
	return revoked.Put(tx, key, &statev1.RevokedGrant{RevokeTime: timestamppb.New(now), RevokedBy: by.String()})
}

// surviveRestore takes out of a restored state the grants that were revoked since, so that restoring an old snapshot lets
// nobody back in. Grants that went with their domain come back with it: they were not revoked.
func surviveRestore(before, _ *raftstore.View, tx *raftstore.Tx) error {
	for row, err := range revoked.All(before, "") {
		if err != nil {
			return fmt.Errorf("read the revoked grants: %w", err)
		}
		restored, found, err := grants.Get(tx, row.Key)
		if err != nil {
			return err
		}
		if found {
			if restored.Value.GetCreateTime().AsTime().After(row.Value.GetRevokeTime().AsTime()) {
				continue // the snapshot is of a time at which it had been granted again
			}
			if err := grants.Delete(tx, row.Key); err != nil {
				return err
			}
		}
		if err := revoked.Put(tx, row.Key, row.Value); err != nil {
			return err
		}
	}
	return nil
}
