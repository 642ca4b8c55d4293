package relationship

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/ententehq/entente/bundle"
)

var (
	// ErrOtherTrustDomain refuses a bundle that belongs to another domain than the one it is to replace.
	ErrOtherTrustDomain = errors.New("the bundle belongs to another trust domain")
	// ErrForeignAuthority refuses a bundle with an authority that names another trust domain: it is another domain's
	// bundle.
	ErrForeignAuthority = errors.New(
		"it holds an authority that names another trust domain; is it the bundle of that domain?",
	)
	// ErrNoUsableKey refuses a bundle whose keys are all left out. An empty list of keys is another thing: it revokes
	// them all.
	ErrNoUsableKey = errors.New("no verifier can use any of its keys; an empty list would revoke all of them")
	// ErrRollback refuses a bundle that is older than the one that is stored.
	ErrRollback = errors.New(
		"its sequence is lower than that of the stored bundle; if the peer was rebuilt, let it in again with " +
			"`entente federation update DOMAIN --bootstrap FILE --reset-sequence`",
	)
	// ErrEquivocation refuses a bundle that gives other keys under a sequence that is known.
	ErrEquivocation = errors.New(
		"it holds other keys than the stored bundle under the same sequence; have the peer's operator explain it; " +
			"if the peer was rebuilt, let it in again with `entente federation update DOMAIN --bootstrap FILE " +
			"--reset-sequence`",
	)
)

// Accept decides whether next may replace current, which is nil while no bundle is stored. The order is that of the
// sequence. A bundle without one is not one of sequence 0: where either has none, the newest retrieved wins. Content is
// the set of usable keys; their order, the refresh hint and unknown fields are not.
//
// A bundle is refused if it is left without any key because none can be used. An X.509 authority need not name its
// trust domain. A bundle with one that names another domain is refused.
func Accept(current, next *bundle.Bundle) error {
	if n := next.LeftOut(); n > 0 && next.Empty() {
		return fmt.Errorf("%w (%d were left out)", ErrNoUsableKey, n)
	}
	if named := namesAnother(next); named != "" {
		return fmt.Errorf("%w (%s, in a bundle of %s)", ErrForeignAuthority, named, next.TrustDomain().Name())
	}
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
	case now == was && (!next.SameKeys(current) || contradictsWIT(current, next)):
		return ErrEquivocation
	}
	return nil
}

// contradictsWIT reports whether two bundles have different WIT authorities. One without any does not contradict: a
// member or a hub of an earlier version left them out.
func contradictsWIT(current, next *bundle.Bundle) bool {
	was, is := current.WITAuthorities(), next.WITAuthorities()
	return len(was) > 0 && len(is) > 0 && !maps.EqualFunc(was, is, bundle.SameKey)
}

// namesAnother returns the SPIFFE ID of an X.509 authority that is of another trust domain than its bundle; empty:
// there is none.
func namesAnother(b *bundle.Bundle) string {
	for _, authority := range b.X509Authorities() {
		for _, uri := range authority.URIs {
			if strings.EqualFold(uri.Scheme, "spiffe") && !strings.EqualFold(uri.Host, b.TrustDomain().Name()) {
				return Clip(uri.String())
			}
		}
	}
	return ""
}
