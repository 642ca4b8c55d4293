// Package token writes the one-time tokens by which whoever is not known yet proves that somebody who is has let it in:
// a new member of a cluster, or another cluster.
//
// A token is one word: a prefix that names its kind and the version of its format, and the encoding of a message with a checksum. One
// token has one text, so that whatever was added to it, or lost or changed on the way, is found before anything in it is used. What was
// damaged is told from what never was a token of that kind: see [ErrDamaged] and [ErrNotAToken].
//
// A token is a secret. No error of this package holds a part of one.
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
	// ErrNotAToken says that a text is no token of the kind that was asked for.
	ErrNotAToken = errors.New("not a token of this kind")
	// ErrDamaged says that a text begins as a token does and was changed or cut on the way.
	ErrDamaged = errors.New("a damaged token")
)

const (
	checksum = 4
	idBytes  = 16
	// MaxText bounds the text of a token.
	MaxText = 8192
)

// Secret is what a token proves. Whoever makes one keeps [Secret.Digest] and forgets the secret.
type Secret [32]byte

// NewSecret draws a secret.
func NewSecret() (s Secret) {
	_, _ = rand.Read(s[:]) // never fails
	return s
}

// Digest is what is stored of a secret.
func (s Secret) Digest() [32]byte { return sha256.Sum256(s[:]) }

// Proves reports whether a secret that somebody presents is the one whose digest was stored, without telling by its time how much
// of it is right.
func Proves(presented, digest []byte) bool {
	sum := sha256.Sum256(presented)
	return subtle.ConstantTimeCompare(sum[:], digest) == 1
}

// NewID draws the name by which a token is known where it was made. It is no secret.
func NewID() string {
	var id [idBytes]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// IsID reports whether [NewID] can have drawn a name.
func IsID(id string) bool {
	raw, err := hex.DecodeString(id)
	return err == nil && len(raw) == idBytes && hex.EncodeToString(raw) == id
}

// Encode writes a token.
func Encode(prefix string, content proto.Message) (string, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(content)
	if err != nil {
		return "", fmt.Errorf("encode the token: %w", err)
	}
	sum := sha256.Sum256(raw)
	return prefix + base64.RawURLEncoding.EncodeToString(append(raw, sum[:checksum]...)), nil
}

// Decode reads a token into content. What content makes of its fields is for the caller; that it has one text is checked here. Errors
// wrap one of this package's two.
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
	if again, err := Encode(prefix, content); err != nil || again != text || len(content.ProtoReflect().GetUnknown()) > 0 {
		return fmt.Errorf("it is not written as a member writes tokens: %w", ErrNotAToken)
	}
	return nil
}
