// Package token encodes one-time tokens. The holder of a token proves that a known party has admitted it: a new member
// of a cluster, or another cluster.
//
// A token is one word: a prefix that names its kind and the version of its format, and the encoding of a message with a
// checksum. A token has exactly one text, so that every addition, loss or change is detected before any of its content
// is used. A damaged token is distinguished from a text that is not a token of that kind: see [ErrDamaged] and
// [ErrNotAToken].
//
// The secret is made by the server, or by the caller, which then sends its digest only and joins the token itself: see
// [Join].
//
// A token is a secret. No error of this package contains a part of one.
package token

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
)

var (
	// ErrNotAToken means that a text is not a token of the expected kind.
	ErrNotAToken = errors.New("not a token of this kind")
	// ErrDamaged means that a text begins like a token and was changed or cut off.
	ErrDamaged = errors.New("a damaged token")
)

const (
	checksum = 4
	idBytes  = 16
	// MaxText bounds the text of a token.
	MaxText = 8192
)

// Secret is the secret of a token. The party that makes one stores [Secret.Digest] and not the secret.
type Secret [32]byte

// NewSecret generates a secret.
func NewSecret() (s Secret) {
	_, _ = rand.Read(s[:]) // never fails
	return s
}

// Digest returns the digest of the secret, to be stored.
func (s Secret) Digest() [32]byte { return sha256.Sum256(s[:]) }

// Proves reports whether a presented secret is the one whose digest was stored. Its duration does not depend on how
// much of the secret is right.
func Proves(presented, digest []byte) bool {
	sum := sha256.Sum256(presented)
	return subtle.ConstantTimeCompare(sum[:], digest) == 1
}

// NewID generates the ID of a token, under which its maker stores it. It is not secret.
func NewID() string {
	var id [idBytes]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// IsID reports whether an ID has the form of [NewID].
func IsID(id string) bool {
	raw, err := hex.DecodeString(id)
	return err == nil && len(raw) == idBytes && hex.EncodeToString(raw) == id
}

// Encode returns the text of a token.
func Encode(prefix string, content proto.Message) (string, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(content)
	if err != nil {
		return "", fmt.Errorf("encode the token: %w", err)
	}
	sum := sha256.Sum256(raw)
	return prefix + base64.RawURLEncoding.EncodeToString(append(raw, sum[:checksum]...)), nil
}

// Decode parses the text of a token into content, and verifies that it is the only text of that content. The fields are
// for the caller to check. Errors wrap one of the two of this package.
func Decode(prefix, text string, content proto.Message) error {
	encoded, ok := strings.CutPrefix(text, prefix)
	switch {
	case len(text) > MaxText:
		return fmt.Errorf("it has %d characters, more than any token: %w", len(text), ErrNotAToken)
	case !ok:
		return fmt.Errorf("it does not begin with %q: %w", prefix, ErrNotAToken)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(encoded, "\r\n") {
		return fmt.Errorf("it has characters that no token has, or lacks its end: %w", ErrDamaged)
	}
	if len(raw) < checksum {
		return fmt.Errorf("its end is missing: %w", ErrDamaged)
	}
	raw, sum := raw[:len(raw)-checksum], raw[len(raw)-checksum:]
	if is := sha256.Sum256(raw); !bytes.Equal(is[:checksum], sum) {
		return fmt.Errorf("it was copied wrongly or in part: its checksum does not fit: %w", ErrDamaged)
	}
	if err := proto.Unmarshal(raw, content); err != nil {
		return fmt.Errorf("its content cannot be read: %w", ErrNotAToken)
	}
	// This refuses unknown fields, repeated ones and any other order.
	if again, err := Encode(prefix, content); err != nil || again != text ||
		len(content.ProtoReflect().GetUnknown()) > 0 {
		return fmt.Errorf("it is not written as a member writes tokens: %w", ErrNotAToken)
	}
	return nil
}
