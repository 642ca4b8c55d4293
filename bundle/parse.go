package bundle

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
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
// without a required member, or out of range, is such a part (RFC 7517, section 5). A document is refused as a whole if
// it is ambiguous or broken: not JSON, not UTF-8, text behind its end, two members of one name, no list of keys, a
// sequence or hint that is not a whole number, an x5c or a key that does not decode, two different keys of one kid,
// more than [MaxKeys] keys, or more members of one object than allowed. Parse never returns a part of a document.
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
		jwt:      make(map[string]crypto.PublicKey),
		x509:     make(map[string]bool),
		values:   make(map[string]json.RawMessage),
		elements: jwk.MaxElements,
	}
	if err := r.document(document); err != nil {
		return nil, nil, err
	}
	r.content.JWTAuthorities = r.jwt
	b, err := New(td, r.content)
	return b, r.left.list(), err
}

// reader collects the content of one document.
type reader struct {
	content Content
	jwt     map[string]crypto.PublicKey
	x509    map[string]bool // by DER
	left    leftOut
	split   strictjson.Splitter
	// elements is the number of ASN.1 elements that the remaining certificates may have.
	elements int
	values   map[string]json.RawMessage // of the key that is being read: the members that have a meaning
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

// key reads one element of keys. An error refuses the document.
func (r *reader) key(i int, element json.RawMessage) error {
	clear(r.values)
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
	switch kty {
	case "EC", "RSA", "OKP":
	case "":
		r.ignore(IgnoredKeyType, i, "no kty")
		return nil
	default:
		r.ignore(IgnoredKeyType, i, "kty %s is not known", refusal.Clip(kty))
		return nil
	}
	use, err := optionalString(values, "use")
	if err != nil {
		return err
	}
	switch use {
	case jwk.UseX509:
		return r.x509Key(i, values)
	case jwk.UseJWT:
		return r.jwtKey(i, values)
	case "":
		r.ignore(IgnoredUse, i, "no use")
	default:
		r.ignore(IgnoredUse, i, "use %s is not %s or %s", refusal.Clip(use), jwk.UseX509, jwk.UseJWT)
	}
	return nil
}

func (r *reader) x509Key(i int, values map[string]json.RawMessage) error {
	value, ok := values["x5c"]
	if !ok {
		r.ignore(IgnoredNoCertificate, i, "no x5c")
		return nil
	}
	var front json.RawMessage
	chain := 0
	err := strictjson.EachElement(value, "x5c", MaxKeys, ErrTooManyKeys, func(n int, element json.RawMessage) error {
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
		r.ignore(IgnoredNoCertificate, i, "x5c is empty")
		return nil
	}
	first, err := strictjson.ParseString(front, "x5c[0]")
	if err != nil {
		return err
	}
	cert, err := jwk.Certificate(first, &r.elements)
	if err != nil {
		return err
	}
	if why := jwk.UnusableAuthority(cert); why != "" {
		r.ignore(IgnoredUnusable, i, "certificate of %s: %s", refusal.Clip(cert.Subject.String()), why)
		return nil
	}
	if err := sameKeyAs(cert, values); err != nil {
		return err
	}
	if chain > 1 {
		r.ignore(IgnoredMoreCertificates, i, "x5c has %d certificates, the first counts", chain)
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

func (r *reader) jwtKey(i int, values map[string]json.RawMessage) error {
	kid, err := optionalString(values, "kid")
	if err != nil {
		return err
	}
	if kid == "" {
		r.ignore(IgnoredNoKeyID, i, "no kid")
		return nil
	}
	if err := jwk.CheckKeyID(kid); err != nil {
		r.ignore(IgnoredUnusable, i, "%v", err)
		return nil
	}
	m, err := keyMembers(values)
	if err != nil {
		return err
	}
	key, err := jwk.PublicKey(m)
	if errors.Is(err, jwk.ErrUnusable) {
		r.ignore(IgnoredUnusable, i, "kid %s: %v", refusal.Clip(kid), err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("kid %s: %w", refusal.Clip(kid), err)
	}
	if why := jwk.UnusableJWTKey(key); why != "" {
		r.ignore(IgnoredUnusable, i, "kid %s: %s", refusal.Clip(kid), why)
		return nil
	}
	if other, ok := r.jwt[kid]; ok {
		if same, ok := other.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(key) {
			return fmt.Errorf("%w: %s", ErrDuplicateKeyID, refusal.Clip(kid))
		}
		r.ignore(IgnoredDuplicate, i, "kid %s occurs twice with the same key", refusal.Clip(kid))
		return nil
	}
	r.jwt[kid] = key
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
