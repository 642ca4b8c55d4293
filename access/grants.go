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

// grantsOf reads a caller's grants from this member's state. A revocation on another member takes effect here when this
// member has applied it.
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

// RevokeDomain deletes every grant for one trust domain. The transaction that deletes a hosted domain calls it, so a
// later domain of the same name does not start with these grants.
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

// revoked is the table of revoked grants, by the keys of the grants.
var revoked = raftstore.NewTable[*statev1.RevokedGrant]("revoked_grants")

// revokedLife is how long a revocation is kept: longer than the age of any snapshot that is still restored.
const revokedLife = 2 * 366 * 24 * time.Hour

// recordRevocation stores a revocation, and deletes those older than revokedLife.
func recordRevocation(tx *raftstore.Tx, key string, by Caller, now time.Time) error {
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

// surviveRestore deletes from a restored state the grants that were revoked since, so an old snapshot gives no access
// back. Grants that were deleted with their domain return with it: they were not revoked.
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
				continue // it was granted again before the snapshot
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
