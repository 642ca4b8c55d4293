package bundle

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle/internal/jwk"
	"github.com/ententehq/entente/bundle/internal/refusal"
)

// Bounds of a bundle, written or read. They hold for every [Bundle], so that every member can read what another one
// wrote.
const (
	// MaxDocumentBytes leaves room for some 500 authorities; one domain has a handful for each member that signs.
	MaxDocumentBytes = 1 << 20
	// MaxKeys counts the keys of a document, including those that are ignored.
	MaxKeys = 1024
)

// Content is the content of a bundle. X509Authorities are CA certificates with RSA, ECDSA or Ed25519 keys;
// JWTAuthorities map a kid to an RSA or ECDSA key, and WITAuthorities to an RSA, ECDSA or Ed25519 key. A nil Sequence
// or RefreshHint is absent, which is not the same as zero.
type Content struct {
	X509Authorities []*x509.Certificate
	JWTAuthorities  map[string]crypto.PublicKey
	// WITAuthorities verify WIT-SVIDs. This cluster verifies none: it carries the keys to readers that do.
	WITAuthorities map[string]crypto.PublicKey
	Sequence       *uint64
	RefreshHint    *time.Duration
}

// Bundle is the trust bundle of one trust domain. It never changes, and is safe for concurrent use. The certificates
// and keys that it returns are shared and must not be changed.
//
// A bundle without any authority is valid: nothing of its domain is trusted.
type Bundle struct {
	td       spiffeid.TrustDomain
	content  Content  // authorities sorted by their DER, each once
	document []byte   // its strict form
	digest   [32]byte // of the usable keys
	leftOut  int      // keys of the document that it was parsed from
}

// New returns the bundle of td. It fails if an authority could not be written to a document or used by a verifier. An
// authority that is given twice counts once.
func New(td spiffeid.TrustDomain, c Content) (*Bundle, error) {
	if td.IsZero() {
		return nil, errors.New("a bundle needs a trust domain")
	}
	if err := checkTrustDomain(td.Name()); err != nil {
		return nil, err
	}
	if n := len(c.X509Authorities) + len(c.JWTAuthorities) + len(c.WITAuthorities); n > MaxKeys {
		return nil, fmt.Errorf(
			"bundle of %s: %w: %d authorities, at most %d are allowed",
			td,
			ErrTooManyKeys,
			n,
			MaxKeys,
		)
	}
	for _, cert := range c.X509Authorities {
		if cert == nil || len(cert.Raw) == 0 {
			return nil, fmt.Errorf("bundle of %s: %w: an X.509 authority is nil or was never signed", td, jwk.ErrKey)
		}
		if why := jwk.UnusableAuthority(cert); why != "" {
			return nil, fmt.Errorf(
				"bundle of %s: %w: X.509 authority %s: %s",
				td,
				jwk.ErrKey,
				refusal.Clip(cert.Subject.String()),
				why,
			)
		}
	}
	for _, use := range keyUses {
		for kid, key := range use.of(c) {
			if err := jwk.CheckKeyID(kid); err != nil {
				return nil, fmt.Errorf(
					"bundle of %s: %w: %s authority %s: %w", td, jwk.ErrKey, use.noun, refusal.Clip(kid), err,
				)
			}
			if why := use.unusable(key); why != "" {
				return nil, fmt.Errorf(
					"bundle of %s: %w: %s authority %s: %s", td, jwk.ErrKey, use.noun, refusal.Clip(kid), why,
				)
			}
		}
	}
	if h := c.RefreshHint; h != nil && (*h < 0 || *h%time.Second != 0) {
		return nil, fmt.Errorf("bundle of %s: %w: it is %s", td, ErrRefreshHint, *h)
	}

	b := &Bundle{td: td, content: c.clone()}
	slices.SortFunc(b.content.X509Authorities, func(x, y *x509.Certificate) int { return bytes.Compare(x.Raw, y.Raw) })
	b.content.X509Authorities = slices.CompactFunc(b.content.X509Authorities, (*x509.Certificate).Equal)
	document, err := marshalDocument(b.content)
	if err != nil {
		return nil, fmt.Errorf("bundle of %s: %w", td, err)
	}
	if len(document) > MaxDocumentBytes {
		return nil, fmt.Errorf(
			"bundle of %s: %w: its document has %d bytes, at most %d are allowed",
			td,
			ErrTooLarge,
			len(document),
			MaxDocumentBytes,
		)
	}
	b.document = document
	if b.digest, err = digestKeys(b.content); err != nil {
		return nil, fmt.Errorf("bundle of %s: %w", td, err)
	}
	return b, nil
}

// keyUse is a use of keys that have a kid and no certificate.
type keyUse struct {
	name, noun string
	of         func(Content) map[string]crypto.PublicKey
	unusable   func(crypto.PublicKey) string
}

// keyUses are the uses of keys without a certificate, in the order in which a document has them.
var keyUses = []keyUse{
	{jwk.UseJWT, "JWT", func(c Content) map[string]crypto.PublicKey { return c.JWTAuthorities }, jwk.UnusableJWTKey},
	{jwk.UseWIT, "WIT", func(c Content) map[string]crypto.PublicKey { return c.WITAuthorities }, jwk.UnusableWITKey},
}

func (c Content) clone() Content {
	c.X509Authorities = slices.Clone(c.X509Authorities)
	c.JWTAuthorities = maps.Clone(c.JWTAuthorities)
	c.WITAuthorities = maps.Clone(c.WITAuthorities)
	if c.Sequence != nil {
		c.Sequence = new(*c.Sequence)
	}
	if c.RefreshHint != nil {
		c.RefreshHint = new(*c.RefreshHint)
	}
	return c
}

// TrustDomain returns the domain that the bundle belongs to.
func (b *Bundle) TrustDomain() spiffeid.TrustDomain { return b.td }

// Content returns a copy of the content, to build the next bundle from.
func (b *Bundle) Content() Content { return b.content.clone() }

// X509Authorities returns the CA certificates, each once, in the order of their DER encoding.
func (b *Bundle) X509Authorities() []*x509.Certificate {
	return slices.Clone(b.content.X509Authorities)
}

// JWTAuthorities returns the public keys by kid.
func (b *Bundle) JWTAuthorities() map[string]crypto.PublicKey {
	return maps.Clone(b.content.JWTAuthorities)
}

// WITAuthorities returns the public keys for WIT-SVIDs by kid.
func (b *Bundle) WITAuthorities() map[string]crypto.PublicKey {
	return maps.Clone(b.content.WITAuthorities)
}

// Sequence returns the number by which bundles of one domain are ordered. A bundle without one is unordered.
func (b *Bundle) Sequence() (uint64, bool) {
	if b.content.Sequence == nil {
		return 0, false
	}
	return *b.content.Sequence, true
}

// RefreshHint returns the interval at which the domain wants its readers to look for a newer bundle, in whole seconds.
// The domain can write any value from zero up: a poller clamps it.
func (b *Bundle) RefreshHint() (time.Duration, bool) {
	if b.content.RefreshHint == nil {
		return 0, false
	}
	return *b.content.RefreshHint, true
}

// Empty reports whether the bundle has no authority that this cluster verifies with: nothing of its domain is trusted.
func (b *Bundle) Empty() bool {
	return len(b.content.X509Authorities) == 0 && len(b.content.JWTAuthorities) == 0
}

// Marshal returns the SPIFFE bundle document. Equal content has equal bytes.
func (b *Bundle) Marshal() []byte { return bytes.Clone(b.document) }

// Document returns the SPIFFE bundle document without a copy. It is shared and must not be changed.
func (b *Bundle) Document() []byte { return b.document }

// Equal reports whether both bundles have the same domain and content, including sequence and hint.
func (b *Bundle) Equal(other *Bundle) bool {
	return b.td == other.td && bytes.Equal(b.document, other.document)
}

// LeftOut returns how many keys for X509-SVIDs or JWT-SVIDs the document had that are not in the bundle, since no
// verifier could use them. They are no content.
func (b *Bundle) LeftOut() int { return b.leftOut }

// With returns a bundle of the same domain with the content that change makes of a copy of this one's.
func (b *Bundle) With(change func(*Content)) (*Bundle, error) {
	c := b.Content()
	change(&c)
	next, err := New(b.td, c)
	if err != nil {
		return nil, err
	}
	next.leftOut = b.leftOut
	return next, nil
}

// WithSequence returns the bundle with another sequence.
func (b *Bundle) WithSequence(n uint64) (*Bundle, error) {
	return b.With(func(c *Content) { c.Sequence = &n })
}

// GetX509BundleForTrustDomain implements [x509bundle.Source] for the bundle's own domain.
func (b *Bundle) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if td != b.td {
		return nil, fmt.Errorf("this is the bundle of %s, not of %s", b.td, td)
	}
	return x509bundle.FromX509Authorities(b.td, b.content.X509Authorities), nil
}

// GetJWTBundleForTrustDomain implements [jwtbundle.Source] for the bundle's own domain.
func (b *Bundle) GetJWTBundleForTrustDomain(td spiffeid.TrustDomain) (*jwtbundle.Bundle, error) {
	if td != b.td {
		return nil, fmt.Errorf("this is the bundle of %s, not of %s", b.td, td)
	}
	return jwtbundle.FromJWTAuthorities(b.td, b.content.JWTAuthorities), nil
}
