// Package statement signs and verifies statements on bundles.
//
// A [Statement] is a JWS by which a trust domain attests to the keys of its bundle at a sequence number. Each statement
// contains the digest of the one before and the keys that may sign the next, so that a reader who knows one can verify
// all later ones. docs/STATEMENTS.md specifies the format.
//
// The package has no clock, network or storage of its own. It also turns the recorded versions of a bundle into rows
// and back ([Record], [FromVersion]). It refuses malformed statements by named errors, and
// reports two statements that contradict each other as a [SplitView]. Start reading at statement.go, then chain.go.
package statement

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/jwk"
	"github.com/ententehq/entente/bundle/internal/refusal"
	"github.com/ententehq/entente/bundle/internal/strictjson"
)

// Type is the "typ" of a statement's header.
const Type = "entente-statement+jws"

// Bounds of a statement, written or read.
const (
	// MaxBytes leaves room for [MaxSigners] keys of some 110 bytes each, in base64url.
	MaxBytes = 48 << 10
	// MaxSigners bounds the keys that a statement names for the next one. Of more JWT authorities, the first by kid are
	// named.
	MaxSigners = 256
	// maxStartBytes bounds the reason for which a chain starts again.
	maxStartBytes = 32
)

// The reasons for which a chain of statements starts, for [Claims].
const (
	// StartFirst is the first version that has a statement.
	StartFirst = "first"
	// StartNoSigner is a version for which no key that the version before named can sign: all were revoked or lost.
	StartNoSigner = "no_signer"
	// StartUnstated is a version after one without a statement.
	StartUnstated = "unstated"
)

// Claims are the content of a statement on one version of a domain's bundle.
type Claims struct {
	TrustDomain spiffeid.TrustDomain
	Sequence    uint64
	// Keys is the [bundle.Bundle.Digest] of the version: the SHA-256 of its canonical set of usable keys.
	Keys [32]byte
	// Previous is the [Statement.Digest] of the statement on the version before. It is zero for the first of a
	// chain; Start then has the reason.
	Previous [32]byte
	Start    string
	// Issued is in whole seconds.
	Issued time.Time
	// Next are the keys that can sign the next statement, by kid, all on P-256: JWT authorities of this version. A
	// reader that has verified a statement needs nothing else to verify the next one.
	Next map[string]*ecdsa.PublicKey
}

// Statement is a domain's signed statement on one version of its bundle: a JWS in compact serialization with ES256,
// which names the digest of the statement before. It has been parsed; [Statement.VerifiedBy] and [Statement.Continues]
// check its signature. It never changes.
type Statement struct {
	claims  Claims
	kid     string
	compact string
	input   int // the length of what is signed: header and claims with the dot between
	r, s    *big.Int
}

// Claims returns a copy of the claims.
func (s *Statement) Claims() Claims {
	c := s.claims
	c.Next = maps.Clone(c.Next)
	return c
}

// TrustDomain returns the domain that the statement is about.
func (s *Statement) TrustDomain() spiffeid.TrustDomain { return s.claims.TrustDomain }

// Sequence returns that of the version.
func (s *Statement) Sequence() uint64 { return s.claims.Sequence }

// KeyID returns the kid of the JWT authority that signed it.
func (s *Statement) KeyID() string { return s.kid }

// String returns the compact serialization.
func (s *Statement) String() string { return s.compact }

// Digest returns the SHA-256 of the signed text: the first two parts of the compact serialization with the dot between.
// The signature is not part of it: ECDSA has many for one text, and anybody can derive a second from a first.
func (s *Statement) Digest() [32]byte { return sha256.Sum256([]byte(s.compact[:s.input])) }

// Starts reports whether the statement starts a chain, for the reason in its claims.
func (s *Statement) Starts() bool { return s.claims.Start != "" }

type statementHeader struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

type statementPayload struct {
	TrustDomain string            `json:"trust_domain"`
	Sequence    uint64            `json:"sequence"`
	Keys        string            `json:"keys"`
	Previous    string            `json:"previous,omitempty"`
	Start       string            `json:"start,omitempty"`
	Issued      int64             `json:"iat"`
	Next        map[string]string `json:"next"`
}

// p256Bytes is the length of a number below the order of P-256.
const p256Bytes = 32

// New makes a statement. sign returns the ES256 signature of its input in the form of JWS: r and s, 32 bytes each. The
// input is the same for the same claims and kid.
func New(c Claims, kid string, sign func(input []byte) ([]byte, error)) (*Statement, error) {
	if len(c.Next) > MaxSigners {
		return nil, fmt.Errorf(
			"statement on %s: %w: it names %d keys, at most %d are allowed",
			c.TrustDomain,
			ErrInvalid,
			len(c.Next),
			MaxSigners,
		)
	}
	header, err := json.Marshal(statementHeader{"ES256", kid, Type})
	if err != nil {
		return nil, fmt.Errorf("statement on %s: %w", c.TrustDomain, err)
	}
	enc := base64.RawURLEncoding
	p := statementPayload{
		TrustDomain: c.TrustDomain.Name(), Sequence: c.Sequence, Keys: enc.EncodeToString(c.Keys[:]), Start: c.Start,
		Issued: c.Issued.Unix(), Next: make(map[string]string, len(c.Next)),
	}
	if c.Start == "" {
		p.Previous = enc.EncodeToString(c.Previous[:])
	}
	for id, key := range c.Next {
		point, err := key.Bytes()
		if err != nil {
			return nil, fmt.Errorf("statement on %s: key %s: %w", c.TrustDomain, refusal.Clip(id), err)
		}
		p.Next[id] = enc.EncodeToString(point[1:])
	}
	payload, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("statement on %s: %w", c.TrustDomain, err)
	}
	input := enc.EncodeToString(header) + "." + enc.EncodeToString(payload)
	signature, err := sign([]byte(input))
	if err != nil {
		return nil, fmt.Errorf("sign the statement on sequence %d of %s: %w", c.Sequence, c.TrustDomain, err)
	}
	return Parse(input + "." + enc.EncodeToString(signature))
}

// Parse reads a statement in compact serialization. It refuses ambiguous ones, and every algorithm but ES256.
func Parse(compact string) (*Statement, error) {
	s, err := parse(compact)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return s, nil
}

func parse(compact string) (*Statement, error) {
	if len(compact) > MaxBytes {
		return nil, fmt.Errorf("it has %d bytes, at most %d are allowed", len(compact), MaxBytes)
	}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("it has %d parts; a JWS in compact serialization has 3", len(parts))
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = fromBase64URL(part); err != nil {
			return nil, fmt.Errorf("part %d: %w", i+1, err)
		}
	}
	s := &Statement{compact: compact, input: len(parts[0]) + 1 + len(parts[1])}
	if err := s.header(decoded[0]); err != nil {
		return nil, err
	}
	if err := s.payload(decoded[1]); err != nil {
		return nil, err
	}
	if len(decoded[2]) != 2*p256Bytes {
		return nil, fmt.Errorf("its signature has %d bytes; one of ES256 has %d", len(decoded[2]), 2*p256Bytes)
	}
	s.r, s.s = new(big.Int).SetBytes(decoded[2][:p256Bytes]), new(big.Int).SetBytes(decoded[2][p256Bytes:])
	return s, nil
}

// header reads alg, kid and typ, each once. Other members are refused, since they can change the meaning of the rest.
func (s *Statement) header(data []byte) error {
	values, err := objectOf(data, "its header", "alg", "kid", "typ")
	if err != nil {
		return err
	}
	var text [3]string
	for i, name := range []string{"alg", "kid", "typ"} {
		if text[i], err = strictjson.ParseString(values[name], name); err != nil {
			return err
		}
	}
	switch {
	case text[0] != "ES256":
		return fmt.Errorf("alg is %s; ES256 alone is allowed", refusal.Clip(text[0]))
	case text[2] != Type:
		return fmt.Errorf("typ is %s; that of a statement is %s", refusal.Clip(text[2]), Type)
	}
	s.kid = text[1]
	return jwk.CheckKeyID(s.kid)
}

func (s *Statement) payload(data []byte) error {
	values, err := objectOf(data, "its payload")
	if err != nil {
		return err
	}
	name, err := strictjson.ParseString(values["trust_domain"], "trust_domain")
	if err != nil {
		return err
	}
	c := &s.claims
	if c.TrustDomain, err = bundle.ParseTrustDomain(name); err != nil {
		return err
	}
	if c.Sequence, err = parseSequenceClaim(values["sequence"]); err != nil {
		return err
	}
	if c.Keys, err = parseSHA256(values["keys"], "keys"); err != nil {
		return err
	}
	_, continues := values["previous"]
	_, starts := values["start"]
	switch {
	case continues == starts:
		return fmt.Errorf("it has one of previous and start: the statement that it continues, or why there is none")
	case continues:
		c.Previous, err = parseSHA256(values["previous"], "previous")
	default:
		c.Start, err = parseStart(values["start"])
	}
	if err != nil {
		return err
	}
	digits, ok := strictjson.WholeNumber(values["iat"])
	seconds, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || seconds > maxIssued {
		return fmt.Errorf("iat is %s; it is a whole number of seconds", refusal.Clip(string(values["iat"])))
	}
	c.Issued = time.Unix(seconds, 0).UTC()
	c.Next, err = parseSigners(values["next"])
	return err
}

// maxIssued is the latest accepted time of issue, in seconds.
const maxIssued = math.MaxInt64 / int64(time.Second)

func parseSequenceClaim(value json.RawMessage) (uint64, error) {
	digits, ok := strictjson.WholeNumber(value)
	n, err := strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("%w: it is %s", bundle.ErrSequence, refusal.Clip(string(value)))
	}
	return n, nil
}

func parseStart(value json.RawMessage) (string, error) {
	start, err := strictjson.ParseString(value, "start")
	if err != nil {
		return "", err
	}
	if start == "" || len(start) > maxStartBytes || strings.Trim(start, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return "", fmt.Errorf("start is %s; it is a word of lower-case letters", refusal.Clip(start))
	}
	return start, nil
}

func parseSigners(value json.RawMessage) (map[string]*ecdsa.PublicKey, error) {
	members, err := strictjson.ParseObject(value, "next")
	if err != nil {
		return nil, err
	}
	if len(members) > MaxSigners {
		return nil, fmt.Errorf("next has %d keys, at most %d are allowed", len(members), MaxSigners)
	}
	keys := make(map[string]*ecdsa.PublicKey, len(members))
	for _, m := range members {
		if err := jwk.CheckKeyID(m.Name); err != nil {
			return nil, err
		}
		text, err := strictjson.ParseString(m.Value, "a key in next")
		if err != nil {
			return nil, err
		}
		point, err := fromBase64URL(text)
		if err != nil || len(point) != 2*p256Bytes {
			return nil, fmt.Errorf(
				"key %s in next is not a point of P-256, %d bytes in base64url",
				refusal.Clip(m.Name),
				2*p256Bytes,
			)
		}
		if keys[m.Name], err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4},
			point...)); err != nil {
			return nil, fmt.Errorf("key %s in next is not on P-256", refusal.Clip(m.Name))
		}
	}
	return keys, nil
}

// objectOf splits a JSON object. If names are given, the object has these members and no other.
func objectOf(data []byte, what string, names ...string) (map[string]json.RawMessage, error) {
	if err := strictjson.ParseText(data); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	members, err := strictjson.ParseObject(data, what)
	if err != nil {
		return nil, err
	}
	values := make(map[string]json.RawMessage, len(members))
	for _, m := range members {
		values[m.Name] = m.Value
	}
	if len(names) > 0 && len(values) != len(names) {
		return nil, fmt.Errorf("%s has %d members; %s are allowed", what, len(values), strings.Join(names, ", "))
	}
	return values, nil
}

func parseSHA256(value json.RawMessage, what string) (digest [32]byte, err error) {
	text, err := strictjson.ParseString(value, what)
	if err != nil {
		return digest, err
	}
	b, err := fromBase64URL(text)
	if err != nil || len(b) != len(digest) {
		return digest, fmt.Errorf("%s is not a SHA-256 in base64url", what)
	}
	return [32]byte(b), nil
}

// fromBase64URL decodes unpadded base64url in its only spelling (RFC 7515, section 2).
func fromBase64URL(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("it is not base64url: it has line breaks")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("it is not base64url without padding")
	}
	return b, nil
}

// VerifiedBy checks the signature with the key of the statement's kid among keys.
func (s *Statement) VerifiedBy(keys map[string]crypto.PublicKey) error {
	key, ok := keys[s.kid].(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("%w: key %s", ErrSigner, refusal.Clip(s.kid))
	}
	return s.verify(key)
}

func (s *Statement) verify(key *ecdsa.PublicKey) error {
	sum := s.Digest()
	if key == nil || key.Curve != elliptic.P256() || !ecdsa.Verify(key, sum[:], s.r, s.s) {
		return fmt.Errorf("%w: key %s", ErrSignature, refusal.Clip(s.kid))
	}
	return nil
}

// VerifiedByOwn checks a statement that starts a chain: a key of its own version signed it. That proves only that the
// author of the version made the statement too.
func (s *Statement) VerifiedByOwn() error { return s.verifiedByNext(s) }

func (s *Statement) verifiedByNext(before *Statement) error {
	key, ok := before.claims.Next[s.kid]
	if !ok {
		return fmt.Errorf("%w: key %s", ErrSigner, refusal.Clip(s.kid))
	}
	return s.verify(key)
}

// Continues checks that this is the statement after before, which the caller trusts: it names the digest of before, has
// a higher sequence, and is signed by a key that before names.
func (s *Statement) Continues(before *Statement) error {
	switch {
	case s.claims.TrustDomain != before.claims.TrustDomain:
		return fmt.Errorf(
			"%w: it is on %s, the one before on %s",
			ErrLink,
			s.claims.TrustDomain,
			before.claims.TrustDomain,
		)
	case s.claims.Sequence <= before.claims.Sequence:
		return fmt.Errorf("%w: sequence %d does not come after %d", ErrLink, s.claims.Sequence, before.claims.Sequence)
	case s.Starts():
		return fmt.Errorf("%w: the chain starts again at sequence %d (%s)", ErrLink, s.claims.Sequence, s.claims.Start)
	case s.claims.Previous != before.Digest():
		return fmt.Errorf(
			"%w: that of sequence %d names another statement before it than that of sequence %d",
			ErrLink,
			s.claims.Sequence,
			before.claims.Sequence,
		)
	}
	return s.verifiedByNext(before)
}
