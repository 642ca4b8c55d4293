package federation

import (
	"sync"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
)

// stored is a bundle as it is stored, parsed when it is first looked at: most polls find that nothing has changed, and need not. It is safe
// for concurrent use. A nil one stands for none.
type stored struct {
	row   *statev1.Bundle
	parse func() (*bundle.Bundle, error)
}

func newStored(row *statev1.Bundle) *stored {
	return &stored{row, sync.OnceValues(func() (*bundle.Bundle, error) { return bundle.FromRow(row) })}
}

// bundle returns it parsed, or nil if there is none.
func (s *stored) bundle() (*bundle.Bundle, error) {
	if s == nil {
		return nil, nil //nolint:nilnil // nil stands for none, as everywhere here
	}
	return s.parse()
}

// accept is [Accept] for what follows it.
func (s *stored) accept(next *bundle.Bundle) error {
	current, err := s.bundle()
	if err != nil {
		return err
	}
	return Accept(current, next)
}

// GetX509BundleForTrustDomain has it verify endpoints.
func (s *stored) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	b, err := s.parse()
	if err != nil {
		return nil, err
	}
	return b.GetX509BundleForTrustDomain(td)
}
