package publish

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

// contentOf returns the content of a hosted bundle: the anchors of the X.509 authorities and the keys of the JWT
// authorities in any state, without what was revoked. So an anchor stays as long as an authority below it exists. An
// anchor of an upstream also stays above a revoked authority, unless the anchor itself was revoked: verifiers read no
// revocation lists, and the anchor would return with the next authority.
//
// The published anchors of the domain's upstream are added. They precede everything that is signed below them.
func contentOf(
	rows []*statev1.Authority, published [][]byte, revoked func(anchor []byte) bool,
) (bundle.Content, error) {
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
					return bundle.Content{}, fmt.Errorf("an anchor of authority %s of %s: %w", row.GetId(),
						row.GetTrustDomain(), err)
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

// readContent returns the content that the rows of a domain require.
func readContent(r raftstore.Reader, td string) (bundle.Content, error) {
	rows, err := table.ListAuthorities(r, td)
	if err != nil {
		return bundle.Content{}, err
	}
	revoked, err := table.RevokedSet(r, td)
	if err != nil {
		return bundle.Content{}, err
	}
	published, err := table.PublishedAnchors(r, td)
	if err != nil {
		return bundle.Content{}, err
	}
	return contentOf(rows, published, revoked)
}

// nextVersion returns the version that follows current, or nil if the document does not change. Its sequence is one
// above that of current and above past, the last sequence that the domain ever had.
//
// The refresh hint counts as part of the document, though two bundles are compared without it: SPIFFE requires a new
// sequence with each change of the document, and a reader that skips known sequences would never see the new hint.
func nextVersion(
	td spiffeid.TrustDomain, current *bundle.Bundle, past uint64, content bundle.Content, hint time.Duration,
) (*bundle.Bundle, error) {
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
		return nil, nil // a domain that never had an authority has no bundle: an empty one would revoke everything
	case current == nil:
		return next, nil
	}
	if was, ok := current.RefreshHint(); ok && was == hint && next.SameKeys(current) {
		return nil, nil
	}
	return next, nil
}

// HostedBundle returns the bundle of a hosted domain, or nil if it has none yet.
func HostedBundle(r raftstore.Reader, td string) (*bundle.Bundle, error) {
	row, ok, err := table.HostedBundles.Get(r, td)
	if err != nil || !ok {
		return nil, err
	}
	return trust.Parse(row.Value)
}
