package authority

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// contentOf is the rule for what a hosted bundle holds: the anchors of the domain's X.509 authorities and the keys of
// its JWT authorities, in whatever state they are, less what was revoked. So an anchor stays for as long as an authority
// below it does. One of an upstream stays above a revoked authority too, unless it was revoked itself: verifiers read no
// revocation list, and to take away for a moment what comes back with the next authority would help nobody.
//
// To these come the published anchors of the domain's upstream, which are there before anything is signed below them.
func contentOf(rows []*statev1.Authority, published [][]byte, revoked func(anchor []byte) bool) (bundle.Content, error) {
	content := bundle.Content{JWTAuthorities: map[string]crypto.PublicKey{}}
	for _, der := range published {
		if revoked(der) {
			continue
		}
		anchor, err := x509.ParseCertificate(der)
		if err != nil {
			return bundle.Content{}, fmt.Errorf("a published anchor of the upstream: %w", err)
		}
		content.X509Authorities = append(content.X509Authorities, anchor)
	}
	for _, row := range rows {
		switch plan.Kind(row.GetKind()) {
		case plan.X509:
			for _, der := range row.GetAnchors() {
				if revoked(der) {
					continue
				}
				anchor, err := x509.ParseCertificate(der)
				if err != nil {
					return bundle.Content{}, fmt.Errorf("an anchor of authority %s of %s: %w", row.GetId(), row.GetTrustDomain(), err)
				}
				content.X509Authorities = append(content.X509Authorities, anchor)
			}
		case plan.JWT:
			if plan.State(row.GetState()) == plan.Revoked {
				continue
			}
			key, err := table.VerificationKey(row)
			if err != nil {
				return bundle.Content{}, err
			}
			content.JWTAuthorities[row.GetId()] = key
		}
	}
	return content, nil
}

// succeed is the rule for the sequence: next follows current, or the last sequence that the domain ever had, and is
// one higher than either if the document says anything else; a nil result means that it says the same.
//
// The refresh hint counts here, though it is no content by which two bundles are compared: SPIFFE asks for another
// sequence whenever what the document holds is updated, and a reader that skips sequences that it knows would
// never learn of the new hint.
func succeed(td spiffeid.TrustDomain, current *bundle.Bundle, past uint64, content bundle.Content, hint time.Duration) (*bundle.Bundle, error) {
	last := past
	if current != nil {
		if sequence, ok := current.Sequence(); ok {
			last = max(last, sequence)
		}
	}
	content.Sequence, content.RefreshHint = new(last+1), &hint
	next, err := bundle.New(td, content)
	if err != nil {
		return nil, err
	}
	switch {
	case current == nil && next.Empty():
		return nil, nil // a domain that never had an authority has no bundle, rather than one that revokes everything
	case current == nil:
		return next, nil
	}
	if was, ok := current.RefreshHint(); ok && was == hint && next.SameKeys(current) {
		return nil, nil
	}
	return next, nil
}

// publish brings the bundle of a hosted domain up to date with the rows of the transaction. Every transaction that
// changes an authority or a domain ends with it. It returns the sequence if there was something to publish.
func (m *Manager) publish(tx *raftstore.Tx, domain *statev1.Domain, now time.Time) (sequence uint64, err error) {
	td, err := bundle.ParseTrustDomain(domain.GetTrustDomain())
	if err != nil {
		return 0, err
	}
	rows, err := table.ListAuthorities(tx, td.Name())
	if err != nil {
		return 0, err
	}
	revoked, err := table.RevokedSet(tx, td.Name())
	if err != nil {
		return 0, err
	}
	published, err := table.PublishedAnchors(tx, td.Name())
	if err != nil {
		return 0, err
	}
	content, err := contentOf(rows, published, revoked)
	if err != nil {
		return 0, err
	}
	current, err := hostedBundle(tx, td.Name())
	if err != nil {
		return 0, err
	}
	past, _, err := table.PastSequences.Get(tx, td.Name())
	if err != nil {
		return 0, err
	}
	next, err := succeed(td, current, past.Value.GetSequence(), content, domain.GetRefreshHint().AsDuration())
	if err != nil || next == nil {
		return 0, err
	}
	sequence, _ = next.Sequence()
	return sequence, m.putBundle(tx, next, now)
}

// hostedBundle returns the domain's bundle, nil if it has none yet.
func hostedBundle(r raftstore.Reader, td string) (*bundle.Bundle, error) {
	row, ok, err := table.HostedBundles.Get(r, td)
	if err != nil || !ok {
		return nil, err
	}
	return trust.Parse(row.Value)
}
