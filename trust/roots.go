package trust

import (
	"crypto/x509"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/raftstore"
)

// Roots are the X.509 authorities of one trust domain that clients of this cluster can verify now.
type Roots struct {
	TrustDomain spiffeid.TrustDomain
	Authorities []*x509.Certificate
}

// Roots returns the domains whose X509-SVIDs can be verified, with their authorities.
func (i *Index) Roots(r raftstore.Reader) ([]Roots, error) {
	var all []Roots
	for d, err := range i.All(r) {
		if err != nil {
			return nil, err
		}
		if !d.Status.X509.Verifiable() {
			continue
		}
		b, found, err := i.bundle(r, d.Name, d.Decision)
		if err != nil {
			return nil, err
		}
		if found {
			all = append(all, Roots{b.TrustDomain(), b.X509Authorities()})
		}
	}
	return all, nil
}
