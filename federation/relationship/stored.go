package relationship

import (
	"sync"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/trust"
)

// Stored is a stored bundle, parsed on first use: most polls find nothing changed, and need not parse it. It is safe
// for concurrent use. A nil Stored is no bundle.
type Stored struct {
	Row   *statev1.Bundle
	parse func() (*bundle.Bundle, error)
}

// NewStored returns the bundle of a row.
func NewStored(row *statev1.Bundle) *Stored {
	return &Stored{row, sync.OnceValues(func() (*bundle.Bundle, error) { return trust.Parse(row) })}
}

// Bundle returns the parsed bundle, or nil if there is none.
func (s *Stored) Bundle() (*bundle.Bundle, error) {
	if s == nil {
		return nil, nil //nolint:nilnil // nil stands for none, as everywhere here
	}
	return s.parse()
}

// Accept applies [Accept] with the stored bundle.
func (s *Stored) Accept(next *bundle.Bundle) error {
	current, err := s.Bundle()
	if err != nil {
		return err
	}
	return Accept(current, next)
}

// GetX509BundleForTrustDomain implements x509bundle.Source.
func (s *Stored) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	b, err := s.parse()
	if err != nil {
		return nil, err
	}
	return b.GetX509BundleForTrustDomain(td)
}
