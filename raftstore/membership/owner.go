package membership

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
)

// Owner returns which of the members does the work named by key, by rendezvous hash: when a member comes or
// goes, only the keys that are its own move. It returns the empty string if there are no members.
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

// weight is a cryptographic hash, since keys may be chosen by others: nobody can pile work on one member.
func weight(key, member string) uint64 {
	h := sha256.New()
	_, _ = io.WriteString(h, member) // a hash takes everything
	_, _ = h.Write([]byte{0})        // as above
	_, _ = io.WriteString(h, key)    // as above
	return binary.BigEndian.Uint64(h.Sum(nil))
}
