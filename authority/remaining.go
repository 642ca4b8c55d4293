package authority

import (
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// Remaining returns what verifiers still accept from the authorities of a removed member, in the order of domains.
func (m *Manager) Remaining(r raftstore.Reader, member string) ([]*ententev1.RemainingTrust, error) {
	domains, err := table.Domains.List(r, "")
	if err != nil {
		return nil, fmt.Errorf("read the hosted domains: %w", err)
	}
	var remaining []*ententev1.RemainingTrust
	for _, domain := range domains {
		rows, err := table.ListAuthorities(r, domain.Key)
		if err != nil {
			return nil, err
		}
		for _, a := range table.AuthoritiesOf(rows) {
			until, detail := a.Remaining(m.config.SigningGrace)
			if a.Member != member || until.IsZero() {
				continue
			}
			kind := ententev1.AuthorityKind_AUTHORITY_KIND_X509
			if a.Kind == plan.JWT {
				kind = ententev1.AuthorityKind_AUTHORITY_KIND_JWT
			}
			remaining = append(remaining, &ententev1.RemainingTrust{
				TrustDomain: domain.Key, AuthorityId: a.ID, Kind: kind, Until: timestamppb.New(until), Detail: detail,
			})
		}
	}
	return remaining, nil
}
