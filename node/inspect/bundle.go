package inspect

import (
	"cmp"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/relationship"
)

// BundleReport describes the content of a SPIFFE bundle document.
type BundleReport struct {
	TrustDomain     string          `json:"trust_domain,omitempty"`
	Sequence        *uint64         `json:"sequence,omitempty"`
	RefreshHint     string          `json:"refresh_hint,omitempty"`
	Digest          string          `json:"digest"`
	X509Authorities []X509Authority `json:"x509_authorities"`
	JWTAuthorities  []KeyAuthority  `json:"jwt_authorities"`
	WITAuthorities  []KeyAuthority  `json:"wit_authorities,omitempty"`
	// Ignored lists the parts without effect, with reasons. IgnoredKeys counts the keys for SVIDs among them.
	Ignored     []string `json:"ignored"`
	IgnoredKeys int      `json:"ignored_keys"`
	// PEM holds the X.509 authorities as certificates.
	PEM []byte `json:"-"`
}

// X509Authority is one certificate of a bundle.
type X509Authority struct {
	Subject   string    `json:"subject"`
	KeyID     string    `json:"key_id"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// KeyAuthority is one key of a bundle without a certificate.
type KeyAuthority struct {
	KeyID string `json:"key_id"`
	Key   string `json:"key"`
}

// unnamed is the trust domain for a document whose domain is unknown. No rule on documents depends on it, and RFC 2606
// reserves the name.
const unnamed = "unnamed.invalid"

// ReadBundle parses a bundle document as a cluster does, and describes its content. A document does not name its trust
// domain; trustDomain is empty if the caller does not know it, and then no authority in it is held against a name. The
// error is the reason for which a cluster that has no bundle of the domain yet refuses the document.
func ReadBundle(trustDomain string, document []byte) (*BundleReport, error) {
	td, err := bundle.ParseTrustDomain(cmp.Or(trustDomain, unnamed))
	if err != nil {
		return nil, err
	}
	b, ignored, err := bundle.ParseFile(td, document)
	switch {
	case err != nil && trustDomain == "":
		return nil, errors.Unwrap(err) // without the placeholder name
	case err != nil:
		return nil, err
	}
	if err := relationship.Accept(nil, b); err != nil {
		if trustDomain != "" || !errors.Is(err, relationship.ErrForeignAuthority) {
			return nil, fmt.Errorf("%w%s", err, listed(ignored))
		}
	}
	digest := b.Digest()
	r := &BundleReport{
		TrustDomain: trustDomain, Digest: hex.EncodeToString(digest[:]), PEM: b.PEM(), IgnoredKeys: b.LeftOut(),
		X509Authorities: []X509Authority{}, JWTAuthorities: keys(b.JWTAuthorities()),
		WITAuthorities: keys(b.WITAuthorities()), Ignored: []string{},
	}
	if n, ok := b.Sequence(); ok {
		r.Sequence = &n
	}
	if d, ok := b.RefreshHint(); ok {
		r.RefreshHint = d.String()
	}
	for _, c := range b.X509Authorities() {
		r.X509Authorities = append(r.X509Authorities, X509Authority{
			Subject: c.Subject.String(), KeyID: hex.EncodeToString(c.SubjectKeyId),
			NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		})
	}
	for _, i := range ignored {
		r.Ignored = append(r.Ignored, i.String())
	}
	return r, nil
}

// keys describes keys by kid.
func keys(of map[string]crypto.PublicKey) []KeyAuthority {
	all := make([]KeyAuthority, 0, len(of))
	for id, key := range of {
		all = append(all, KeyAuthority{KeyID: id, Key: bundle.KeyKind(key)})
	}
	slices.SortFunc(all, func(a, b KeyAuthority) int { return cmp.Compare(a.KeyID, b.KeyID) })
	return all
}

// listed returns the first ignored parts for an error.
func listed(ignored []bundle.Ignored) string {
	const most = 5
	var text strings.Builder
	for i, part := range ignored {
		if i == most {
			fmt.Fprintf(&text, "; and %d more", bundle.CountIgnored(ignored)-most)
			break
		}
		fmt.Fprintf(&text, "; %s", part)
	}
	return text.String()
}
