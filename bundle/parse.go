package bundle

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle/internal/jwk"
	"github.com/ententehq/entente/bundle/internal/refusal"
	"github.com/ententehq/entente/bundle/internal/strictjson"
)

// maxHint is the longest time in whole seconds that a [time.Duration] holds, some 292 years. A longer hint reads as
// this.
const maxHint = math.MaxInt64 / int64(time.Second)

// Parse reads the SPIFFE bundle document of td.
//
// Parts that the standard requires a reader to ignore are ignored, and the first [MaxIgnored] of them listed. A key
// that cannot be used is such a part, whatever is wrong with it: a member is missing, out of range or does not decode,
// or its members contradict each other (RFC 7517, section 5). A document is refused as a whole if it is ambiguous or
// out of bounds: not JSON, not UTF-8, text behind its end, two members of one name, no list of keys, a sequence or hint
// that is not a whole number, two different keys of one kid, more than [MaxKeys] keys, or more members of one object or
// more parts of certificates than allowed.
func Parse(td spiffeid.TrustDomain, document []byte) (*Bundle, []Ignored, error) {
	b, ignored, err := parse(td, document)
	if err != nil {
		return nil, nil, fmt.Errorf("bundle document of %s: %w", td, err)
	}
	return b, ignored, nil
}

func parse(td spiffeid.TrustDomain, document []byte) (*Bundle, []Ignored, error) {
	if len(document) > MaxDocumentBytes {
		return nil, nil, fmt.Errorf(
			"%w: it has %d bytes, at most %d are allowed",
			ErrTooLarge,
			len(document),
			MaxDocumentBytes,
		)
	}
	if err := strictjson.ParseText(document); err != nil {
		return nil, nil, err
	}
	r := reader{
		keysOf:   map[string]map[string]crypto.PublicKey{jwk.UseJWT: {}, jwk.UseWIT: {}},
		x509:     make(map[string]bool),
		values:   make(map[string]json.RawMessage),
		elements: jwk.MaxElements,
	}
	if err := r.document(document); err != nil {
		return nil, nil, err
	}
	r.content.JWTAuthorities, r.content.WITAuthorities = r.keysOf[jwk.UseJWT], r.keysOf[jwk.UseWIT]
	return r.bundle(td)
}

// reader collects the content of one document.
type reader struct {
	content Content
	keysOf  map[string]map[string]crypto.PublicKey // by use and kid
	x509    map[string]bool                        // by DER
	left    leftOut
	keys    int // the keys for SVIDs that were left out
	split   strictjson.Splitter
	// elements is the number of ASN.1 elements that the remaining certificates may have.
	elements int
	values   map[string]json.RawMessage // of the key that is being read: the members that have a meaning
}

// bundle returns what was read.
func (r *reader) bundle(td spiffeid.TrustDomain) (*Bundle, []Ignored, error) {
	b, err := New(td, r.content)
	if err != nil {
		return nil, nil, err
	}
	b.leftOut = r.keys
	return b, r.left.list(), nil
}

// leaveOut ignores the key that is being read, which is meant for SVIDs. One for WIT-SVIDs, of which this cluster
// verifies none, is no loss.
func (r *reader) leaveOut(kind IgnoredKind, key int, format string, args ...any) {
	if use, _ := optionalString(r.values, "use"); use != jwk.UseWIT {
		r.keys++
	}
	r.ignore(kind, key, format, args...)
}

func (r *reader) ignore(kind IgnoredKind, key int, format string, args ...any) {
	if r.left.full() {
		r.left.more++
		return
	}
	r.left.add(Ignored{Kind: kind, Key: key, Detail: fmt.Sprintf(format, args...)})
}

func (r *reader) document(document []byte) error {
	var keys json.RawMessage
	err := r.split.Object(
		document,
		"the document",
		strictjson.MaxMembers,
		func(name string, value json.RawMessage) error {
			switch name {
			case "keys":
				keys = value
			case "spiffe_sequence":
				n, err := parseSequence(value)
				if err != nil {
					return err
				}
				r.content.Sequence = &n
			case "spiffe_refresh_hint":
				d, err := parseHint(value)
				if err != nil {
					return err
				}
				r.content.RefreshHint = &d
			default:
				r.ignore(IgnoredParameter, -1, "unknown parameter %s", refusal.Clip(name))
			}
			return nil
		},
	)
	if err != nil {
		return err
	}
	if keys == nil || strictjson.Kind(keys) == "null" {
		return fmt.Errorf("%w: keys must be present; an empty list means that no key is trusted", ErrNoKeys)
	}
	if _, err := strictjson.CountElements(keys, "keys", MaxKeys, ErrTooManyKeys); err != nil {
		return err
	}
	return strictjson.EachElement(keys, "keys", MaxKeys, ErrTooManyKeys, func(i int, element json.RawMessage) error {
		if err := r.key(i, element); err != nil {
			return fmt.Errorf("key %d: %w", i, err)
		}
		return nil
	})
}

func parseSequence(value json.RawMessage) (uint64, error) {
	digits, ok := strictjson.WholeNumber(value)
	if !ok {
		return 0, fmt.Errorf("%w: spiffe_sequence is %s", ErrSequence, refusal.Clip(string(value)))
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: spiffe_sequence is %s", ErrSequence, refusal.Clip(digits))
	}
	return n, nil
}

func parseHint(value json.RawMessage) (time.Duration, error) {
	digits, ok := strictjson.WholeNumber(value)
	if !ok {
		return 0, fmt.Errorf("%w: spiffe_refresh_hint is %s", ErrRefreshHint, refusal.Clip(string(value)))
	}
	seconds, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || seconds > maxHint {
		seconds = maxHint
	}
	return time.Duration(seconds) * time.Second, nil
}

// key reads one element of keys, and leaves it out if it is broken. An error refuses the document.
func (r *reader) key(i int, element json.RawMessage) error {
	clear(r.values)
	if kind := strictjson.Kind(element); kind != "an object" {
		r.leaveOut(IgnoredUnusable, i, "it is %s, not an object", kind)
		return nil
	}
	err := r.readKey(i, element)
	if errors.Is(err, jwk.ErrKey) || errors.Is(err, strictjson.ErrMalformed) {
		r.leaveOut(IgnoredUnusable, i, "%s", oneLine(err.Error()))
		return nil
	}
	return err
}

// maxDetail bounds what a parser says about a broken key.
const maxDetail = 200

func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxDetail {
		text = strings.ToValidUTF8(text[:maxDetail], "") + "…"
	}
	return text
}

// readKey reads one key. [jwk.ErrKey] and [strictjson.ErrMalformed] are errors of this key alone: the text around it
// was found to be JSON.
func (r *reader) readKey(i int, element json.RawMessage) error {
	values := r.values
	err := r.split.Object(
		element,
		"the element",
		strictjson.MaxMembers,
		func(name string, value json.RawMessage) error {
			switch name {
			case "kty", "use", "kid", "x5c", "crv", "x", "y", "n", "e":
				values[name] = value
			}
			return nil
		},
	)
	if err != nil {
		return err
	}
	kty, err := optionalString(values, "kty")
	if err != nil {
		return err
	}
	use, err := optionalString(values, "use")
	if err != nil {
		return err
	}
	ignore := r.ignore
	if use == jwk.UseX509 || use == jwk.UseJWT {
		ignore = r.leaveOut
	}
	switch kty {
	case "EC", "RSA", "OKP":
	case "":
		ignore(IgnoredKeyType, i, "no kty")
		return nil
	default:
		ignore(IgnoredKeyType, i, "kty %s is not known", refusal.Clip(kty))
		return nil
	}
	switch use {
	case jwk.UseX509:
		return r.x509Key(i, values)
	case "":
		r.ignore(IgnoredUse, i, "no use")
		return nil
	}
	for _, known := range keyUses {
		if use == known.name {
			return r.keyWithID(i, known, values)
		}
	}
	r.ignore(IgnoredUse, i, "use %s is not %s, %s or %s", refusal.Clip(use), jwk.UseX509, jwk.UseJWT, jwk.UseWIT)
	return nil
}

func (r *reader) x509Key(i int, values map[string]json.RawMessage) error {
	value, ok := values["x5c"]
	if !ok {
		r.leaveOut(IgnoredNoCertificate, i, "no x5c")
		return nil
	}
	var front json.RawMessage
	chain := 0
	err := strictjson.EachElement(value, "x5c", MaxKeys, jwk.ErrKey, func(n int, element json.RawMessage) error {
		if n == 0 {
			front = element
		}
		chain = n + 1
		return nil
	})
	if err != nil {
		return err
	}
	if chain == 0 {
		r.leaveOut(IgnoredNoCertificate, i, "x5c is empty")
		return nil
	}
	first, err := strictjson.ParseString(front, "x5c[0]")
	if err != nil {
		return err
	}
	if chain > 1 {
		r.ignore(IgnoredMoreCertificates, i, "x5c has %d certificates, the first counts", chain)
	}
	return r.authority(i, first, values)
}

// authority reads the certificate of an X.509 authority. values are the members of its key.
func (r *reader) authority(i int, encoded string, values map[string]json.RawMessage) error {
	cert, err := jwk.Certificate(encoded, &r.elements)
	if err != nil {
		return err
	}
	if why := jwk.UnusableAuthority(cert); why != "" {
		r.leaveOut(IgnoredUnusable, i, "certificate of %s: %s", refusal.Clip(cert.Subject.String()), why)
		return nil
	}
	if err := sameKeyAs(cert, values); err != nil {
		return err
	}
	if r.x509[string(cert.Raw)] {
		r.ignore(IgnoredDuplicate, i, "certificate of %s occurs twice", refusal.Clip(cert.Subject.String()))
		return nil
	}
	r.x509[string(cert.Raw)] = true
	r.content.X509Authorities = append(r.content.X509Authorities, cert)
	return nil
}

// sameKeyAs checks that the JWK's own members, if present, are the key of its certificate, as RFC 7517 requires in
// section 4.7. The certificate counts, so missing members are no error.
func sameKeyAs(cert *x509.Certificate, values map[string]json.RawMessage) error {
	for _, name := range []string{"n", "x"} {
		if _, ok := values[name]; !ok {
			continue
		}
		m, err := keyMembers(values)
		if err != nil {
			return err
		}
		key, err := jwk.PublicKey(m)
		if err != nil && !errors.Is(err, jwk.ErrUnusable) {
			return err
		}
		certKey, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		if err != nil || !ok || !certKey.Equal(key) {
			return fmt.Errorf("%w: its members and its certificate hold different keys", jwk.ErrKey)
		}
	}
	return nil
}

// keyWithID reads a key of a use without certificates.
func (r *reader) keyWithID(i int, use keyUse, values map[string]json.RawMessage) error {
	kid, err := optionalString(values, "kid")
	if err != nil {
		return err
	}
	if kid == "" {
		r.leaveOut(IgnoredNoKeyID, i, "no kid")
		return nil
	}
	if err := jwk.CheckKeyID(kid); err != nil {
		r.leaveOut(IgnoredUnusable, i, "%v", err)
		return nil
	}
	m, err := keyMembers(values)
	if err != nil {
		return err
	}
	key, err := jwk.PublicKey(m)
	if errors.Is(err, jwk.ErrUnusable) {
		r.leaveOut(IgnoredUnusable, i, "kid %s: %v", refusal.Clip(kid), err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("kid %s: %w", refusal.Clip(kid), err)
	}
	if why := use.unusable(key); why != "" {
		r.leaveOut(IgnoredUnusable, i, "kid %s: %s", refusal.Clip(kid), why)
		return nil
	}
	if other, ok := r.keysOf[use.name][kid]; ok {
		if same, ok := other.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(key) {
			return fmt.Errorf("%w: %s", ErrDuplicateKeyID, refusal.Clip(kid))
		}
		r.ignore(IgnoredDuplicate, i, "kid %s occurs twice with the same key", refusal.Clip(kid))
		return nil
	}
	r.keysOf[use.name][kid] = key
	return nil
}

// keyMembers reads the members of a JWK that make up its public key.
func keyMembers(values map[string]json.RawMessage) (map[string]string, error) {
	m := make(map[string]string)
	for _, name := range []string{"kty", "crv", "x", "y", "n", "e"} {
		s, err := optionalString(values, name)
		if err != nil {
			return nil, err
		}
		if s != "" {
			m[name] = s
		}
	}
	return m, nil
}

// optionalString reads a member that is a string or absent.
func optionalString(values map[string]json.RawMessage, name string) (string, error) {
	value, ok := values[name]
	if !ok {
		return "", nil
	}
	return strictjson.ParseString(value, name)
}
