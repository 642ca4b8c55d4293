package relationship

import (
	"sync"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/trust"
)

// Stored is a bundle as it is stored, parsed when it is first looked at: most polls find that nothing has changed, and
// need not. It is safe for concurrent use. A nil one stands for none.
type Stored struct {
	Row   *statev1.Bundle
	parse func() (*bundle.Bundle, error)
}

func NewStored(row *statev1.Bundle) *Stored {
	return &Stored{row, sync.OnceValues(func() (*bundle.Bundle, error) { return trust.Parse(row) })}
}

// Bundle returns it parsed, or nil if there is none.
func (s *Stored) Bundle() (*bundle.Bundle, error) {
	if s == nil {
		return nil, nil //nolint:nilnil // nil stands for none, as everywhere here
	}
	return s.parse()
}

// Accept is [Accept] for what follows it.
func (s *Stored) Accept(next *bundle.Bundle) error {
	current, err := s.Bundle()
	if err != nil {
		return err
	}
	return Accept(current, next)
}

// GetX509BundleForTrustDomain has it verify endpoints.
func (s *Stored) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	b, err := s.parse()
	if err != nil {
		return nil, err
	}
	return b.GetX509BundleForTrustDomain(td)
}
