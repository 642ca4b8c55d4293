package relationship

import (
	"errors"
	"fmt"
	"slices"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
)

const (
	// MaxEndpoints bounds the endpoints of one relationship. Each that hangs delays the fetch by its timeout.
	MaxEndpoints = 4
	// maxServingBundleBytes bounds the serving bundle, which is stored in the relationship's row.
	maxServingBundleBytes = 64 << 10
	// minDocumentBytes is below any document with one X.509 authority.
	minDocumentBytes = 1 << 10
	// minFetchTimeout leaves time for a handshake and an answer across the world.
	minFetchTimeout = 500 * time.Millisecond
)

// MaxFetchTimeout is the longest duration of a fetch from one endpoint, and the default.
const MaxFetchTimeout = 30 * time.Second

// Limits bound a fetch from one endpoint. Zero is the global bound.
type Limits struct {
	DocumentBytes int64
	Timeout       time.Duration
}

// Bound applies the limits to a client's configuration. They can only make its bounds narrower.
func (l Limits) Bound(c *endpoint.ClientConfig) {
	if l.DocumentBytes > 0 && (c.MaxDocumentBytes <= 0 || l.DocumentBytes < c.MaxDocumentBytes) {
		c.MaxDocumentBytes = l.DocumentBytes
	}
	if l.Timeout > 0 && (c.Timeout <= 0 || l.Timeout < c.Timeout) {
		c.Timeout = l.Timeout
	}
}

func parseLimits(row *statev1.Relationship) (Limits, error) {
	l := Limits{DocumentBytes: int64(row.GetMaxDocumentBytes())}
	if l.DocumentBytes != 0 && (l.DocumentBytes < minDocumentBytes || l.DocumentBytes > bundle.MaxDocumentBytes) {
		return Limits{}, fmt.Errorf(
			"max_document_bytes is %d; it must lie between %d and %d, or be 0 for the most",
			l.DocumentBytes,
			minDocumentBytes,
			bundle.MaxDocumentBytes,
		)
	}
	if d := row.GetFetchTimeout(); d != nil {
		if d.CheckValid() != nil || d.AsDuration() < minFetchTimeout || d.AsDuration() > MaxFetchTimeout {
			return Limits{}, fmt.Errorf(
				"fetch_timeout must lie between %s and %s; leave it out for the longest",
				minFetchTimeout,
				MaxFetchTimeout,
			)
		}
		l.Timeout = d.AsDuration()
	}
	return l, nil
}

func parsePollInterval(row *statev1.Relationship) (time.Duration, error) {
	d := row.GetPollInterval()
	if d == nil {
		return 0, nil
	}
	if d.CheckValid() != nil || d.AsDuration() < LowestMinRefresh || d.AsDuration() > MaxRefresh {
		return 0, fmt.Errorf("poll_interval must lie between %s and %s; leave it out to follow the refresh hint",
			LowestMinRefresh, MaxRefresh)
	}
	return d.AsDuration(), nil
}

// PollIntervalOf reads the poll interval of a stored row. Zero is the bundle's refresh hint.
func PollIntervalOf(row *statev1.Relationship) time.Duration {
	d, err := parsePollInterval(row)
	if err != nil {
		return 0
	}
	return d
}

// Kinds are the authorities of a foreign domain that count.
type Kinds struct{ X509, JWT bool }

func parseKinds(row *statev1.Relationship) (Kinds, error) {
	if len(row.GetAuthorityKinds()) == 0 {
		return Kinds{X509: true, JWT: true}, nil
	}
	var k Kinds
	for _, kind := range row.GetAuthorityKinds() {
		var is *bool
		switch ententev1.AuthorityKind(kind) {
		case ententev1.AuthorityKind_AUTHORITY_KIND_X509:
			is = &k.X509
		case ententev1.AuthorityKind_AUTHORITY_KIND_JWT:
			is = &k.JWT
		default:
			return Kinds{}, fmt.Errorf(
				"authority_kinds has %d, which is no kind; name x509, jwt, or leave it out for both",
				kind,
			)
		}
		if *is {
			return Kinds{}, errors.New("authority_kinds names a kind twice; name x509, jwt, or leave it out for both")
		}
		*is = true
	}
	return k, nil
}

// KindsOf reads the kinds of a stored row. Unknown kinds do not count.
func KindsOf(row *statev1.Relationship) Kinds {
	k, err := parseKinds(row)
	if err != nil {
		return Kinds{}
	}
	return k
}

// Relied returns the part of a foreign domain's bundle that its relationship relies on. The bundle is stored whole, so
// that its digest stays the one that the domain signs.
func Relied(row *statev1.Relationship, b *bundle.Bundle) (*bundle.Bundle, error) {
	k := KindsOf(row)
	if k.X509 && k.JWT {
		return b, nil
	}
	return b.With(func(c *bundle.Content) {
		if !k.X509 {
			c.X509Authorities = nil
		}
		if !k.JWT {
			c.JWTAuthorities = nil
		}
		c.WITAuthorities = nil // no kind that can be named
	})
}

// parseEndpoints parses all endpoints of a relationship, in order.
func parseEndpoints(r *Relationship, row *statev1.Relationship) ([]endpoint.Remote, error) {
	urls := URLs(row)
	if len(urls) > MaxEndpoints {
		return nil, fmt.Errorf("there are %d endpoints; %d are the most, url included", len(urls), MaxEndpoints)
	}
	var all []endpoint.Remote
	for i, u := range urls {
		if slices.Contains(urls[:i], u) {
			return nil, fmt.Errorf("fallback_urls has %s twice, url included; name each endpoint once", Quote(u))
		}
		field := "url"
		if i > 0 {
			field = "fallback_urls"
		}
		ep, err := parseEndpoint(r.TrustDomain, row, field, u)
		if err != nil {
			return nil, err
		}
		all = append(all, ep)
	}
	return all, nil
}

// parseServing parses the bundle that verifies an endpoint in another domain. It returns nil if there is none.
func parseServing(e endpoint.Remote, document []byte) (*bundle.Bundle, error) {
	switch {
	case len(document) == 0:
		return nil, nil
	case e.Profile() != endpoint.HTTPSSPIFFE, e.SelfServing():
		return nil, errors.New(
			"serving_bundle belongs to profile https_spiffe with an endpoint_spiffe_id in another domain than the " +
				"relationship's; leave it out",
		)
	case len(document) > maxServingBundleBytes:
		return nil, fmt.Errorf("serving_bundle has %d bytes; %d are the most", len(document), maxServingBundleBytes)
	}
	b, _, err := bundle.ParseFile(e.ID().TrustDomain(), document)
	if err != nil {
		return nil, fmt.Errorf(
			"serving_bundle of %s is refused: %s; get the document from that domain's operator",
			e.ID().TrustDomain(),
			Clip(err.Error()),
		)
	}
	if len(b.X509Authorities()) == 0 {
		return nil, fmt.Errorf(
			"serving_bundle of %s holds no X.509 authority, so no endpoint can be verified by it",
			e.ID().TrustDomain(),
		)
	}
	return b, nil
}
