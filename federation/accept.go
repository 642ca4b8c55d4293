package federation

import (
	"errors"

	"github.com/ententehq/entente/bundle"
)

var (
	// ErrOtherTrustDomain refuses a bundle that belongs to another domain than the one it is to replace.
	ErrOtherTrustDomain = errors.New("the bundle belongs to another trust domain")
	// ErrRollback refuses a bundle that is older than the one that is stored.
	ErrRollback = errors.New("its sequence is lower than that of the stored bundle; if the peer was rebuilt, let it in again with " +
		"`entente federation update DOMAIN --bootstrap FILE --reset-sequence`")
	// ErrEquivocation refuses a bundle that gives other keys under a sequence that is known.
	ErrEquivocation = errors.New("it holds other keys than the stored bundle under the same sequence; have the peer's operator explain it; " +
		"if the peer was rebuilt, let it in again with `entente federation update DOMAIN --bootstrap FILE --reset-sequence`")
)

// Accept decides whether next may replace current, which is nil while no bundle is stored. The order is that of the sequence.
// A bundle without one is not one of sequence 0: where either has none, the newest retrieved wins.
// Content is the set of usable keys; their order, the refresh hint and unknown fields are not.
func Accept(current, next *bundle.Bundle) error {
	if current == nil {
		return nil
	}
	if next.TrustDomain() != current.TrustDomain() {
		return ErrOtherTrustDomain
	}
	was, wasOrdered := current.Sequence()
	now, nowOrdered := next.Sequence()
	switch {
	case !wasOrdered || !nowOrdered:
		return nil
	case now < was:
		return ErrRollback
	case now == was && !next.SameKeys(current):
		return ErrEquivocation
	}
	return nil
}
