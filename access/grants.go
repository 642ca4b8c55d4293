package access

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

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
