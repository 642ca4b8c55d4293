package membership

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
)

// Owner returns which of the members does the work named by key, by rendezvous hash: when a member is added or removed,
// only its own keys move. It returns the empty string if there are no members.
func Owner(key string, members []string) string {
	var owner string
	var highest uint64
	for _, m := range members {
		if w := weight(key, m); owner == "" || w > highest || w == highest && m < owner {
			owner, highest = m, w
		}
	}
	return owner
}

// weight is a cryptographic hash, because outsiders may choose keys: they must not be able to direct work to one
// member.
func weight(key, member string) uint64 {
	h := sha256.New()
	_, _ = io.WriteString(h, member) // a hash never fails
	_, _ = h.Write([]byte{0})        // as above
	_, _ = io.WriteString(h, key)    // as above
	return binary.BigEndian.Uint64(h.Sum(nil))
}
