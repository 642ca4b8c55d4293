package relationship

import "github.com/ententehq/entente/trust"

// TrustSource returns the tables and rules of relationships and of hubs' attestations, by which package trust decides
// on foreign domains.
func TrustSource() trust.Foreign {
	return trust.Foreign{
		Relationships: Relationships, Bundles: ForeignBundles, Attestations: HubBundles,
		Status: TrustOf, Attest: AttestationOf, Usable: Relied, Attested: Attested,
	}
}
