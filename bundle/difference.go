package bundle

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ententehq/entente/bundle/internal/jwk"
	"github.com/ententehq/entente/bundle/internal/refusal"
)

// DifferenceKind is the kind of a difference between two versions of a bundle.
type DifferenceKind string

// The kinds of differences.
const (
	AuthorityAdded   DifferenceKind = "authority_added"
	AuthorityRemoved DifferenceKind = "authority_removed"
	KeyReplaced      DifferenceKind = "key_replaced" // another key under the same kid
	HintChanged      DifferenceKind = "hint_changed"
)

// Difference is one difference between two versions of a bundle.
type Difference struct {
	Kind DifferenceKind `json:"kind"`
	// Use is "x509-svid", "jwt-svid" or "wit-svid", or empty if the difference is not about an authority.
	Use string `json:"use,omitempty"`
	// KeyID is the subject key identifier of a certificate, in hexadecimal, or the kid of a JWT key.
	KeyID string `json:"key_id,omitempty"`
	// Text describes the difference in one line. Text of a document is quoted and cut.
	Text string `json:"text"`
}

// Differences returns the differences between two versions of a bundle: X.509 authorities first, then JWT and WIT
// authorities, then the refresh hint. Sequences are not compared. A nil from has no content.
func Differences(from, to *Bundle) []Difference {
	var was Content
	if from != nil {
		was = from.content
	}
	is := to.content
	var all []Difference
	all = appendCertificates(all, AuthorityRemoved, missing(was.X509Authorities, is.X509Authorities))
	all = appendCertificates(all, AuthorityAdded, missing(is.X509Authorities, was.X509Authorities))
	for _, use := range keyUses {
		all = append(all, use.differences(use.of(was), use.of(is))...)
	}
	if from != nil && hintOf(was) != hintOf(is) {
		all = append(
			all,
			Difference{
				Kind: HintChanged,
				Text: fmt.Sprintf("refresh hint changed from %s to %s", hintOf(was), hintOf(is)),
			},
		)
	}
	return all
}

// differences returns the differences between two sets of keys of one use, by kid: those that left or changed first.
func (u keyUse) differences(was, is map[string]crypto.PublicKey) (all []Difference) {
	for _, kid := range slices.Sorted(maps.Keys(was)) {
		switch key, ok := is[kid]; {
		case !ok:
			text := fmt.Sprintf("%s authority removed: key %s, %s", u.noun, word(kid), KeyKind(was[kid]))
			all = append(all, Difference{AuthorityRemoved, u.name, kid, text})
		case !SameKey(was[kid], key):
			text := fmt.Sprintf(
				"%s authority replaced: key %s stands for another key, %s", u.noun, word(kid), KeyKind(key),
			)
			all = append(all, Difference{KeyReplaced, u.name, kid, text})
		}
	}
	for _, kid := range slices.Sorted(maps.Keys(is)) {
		if _, ok := was[kid]; !ok {
			text := fmt.Sprintf("%s authority added: key %s, %s", u.noun, word(kid), KeyKind(is[kid]))
			all = append(all, Difference{AuthorityAdded, u.name, kid, text})
		}
	}
	return all
}

// missing returns the certificates of these that are not among others. Both are sorted by their DER.
func missing(these, others []*x509.Certificate) (gone []*x509.Certificate) {
	for _, c := range these {
		byDER := func(o *x509.Certificate, der []byte) int { return bytes.Compare(o.Raw, der) }
		if _, found := slices.BinarySearchFunc(others, c.Raw, byDER); !found {
			gone = append(gone, c)
		}
	}
	return gone
}

func appendCertificates(all []Difference, kind DifferenceKind, certificates []*x509.Certificate) []Difference {
	verb := map[DifferenceKind]string{AuthorityAdded: "added", AuthorityRemoved: "removed"}[kind]
	for _, c := range certificates {
		id := hex.EncodeToString(c.SubjectKeyId)
		all = append(
			all,
			Difference{kind, jwk.UseX509, id, fmt.Sprintf(
				"X.509 authority %s: key %s, %s, valid from %s to %s",
				verb,
				word(id),
				refusal.Clip(c.Subject.String()),
				c.NotBefore.UTC().Format(time.RFC3339),
				c.NotAfter.UTC().Format(time.RFC3339),
			)},
		)
	}
	return all
}

// word returns a key ID for a sentence: as it is if it is plain, else quoted and cut.
func word(id string) string {
	if id == "" {
		return "without ID"
	}
	for i := range len(id) {
		if c := id[i]; !isLowerOrDigit(c) && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != '.' || len(id) > 64 {
			return refusal.Clip(id)
		}
	}
	return id
}

func hintOf(c Content) string {
	if c.RefreshHint == nil {
		return "none"
	}
	return c.RefreshHint.String()
}

// SameKey reports whether two public keys are equal.
func SameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

// KeyKind returns the kind and size of a public key, such as "EC P-256".
func KeyKind(key any) string {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return "EC " + k.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("%T", key)
}
