package bundle

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"hash"
	"maps"
	"slices"

	"github.com/ententehq/entente/bundle/internal/jwk"
	"github.com/ententehq/entente/bundle/internal/refusal"
)

// Digest returns the SHA-256 of the keys that this cluster verifies with, X.509 and JWT authorities. It does not depend
// on order, sequence, refresh hint or ignored parts, nor on WIT authorities, which earlier versions leave out.
func (b *Bundle) Digest() [32]byte { return b.digest }

// SameKeys reports whether both bundles have the same keys to verify with, by their digests.
func (b *Bundle) SameKeys(other *Bundle) bool { return b.digest == other.digest }

// digestKeys hashes each authority with its kind and the lengths of its parts, so that no two sets have the same
// encoding. The authorities of c are sorted and each is there once. Peers acknowledge a bundle by its digest: a change
// here needs a new prefix.
func digestKeys(c Content) ([32]byte, error) {
	h := sha256.New()
	h.Write([]byte("entente bundle keys 1\n"))
	for _, cert := range c.X509Authorities {
		hashParts(h, []byte(jwk.UseX509), cert.Raw)
	}
	for _, kid := range slices.Sorted(maps.Keys(c.JWTAuthorities)) {
		spki, err := x509.MarshalPKIXPublicKey(c.JWTAuthorities[kid])
		if err != nil {
			return [32]byte{}, fmt.Errorf("%w: JWT authority %s: %w", jwk.ErrKey, refusal.Clip(kid), err)
		}
		hashParts(h, []byte(jwk.UseJWT), []byte(kid), spki)
	}
	return [32]byte(h.Sum(nil)), nil
}

func hashParts(h hash.Hash, parts ...[]byte) {
	var size [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write(p)
	}
}
