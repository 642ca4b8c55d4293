package svid

import (
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/internal/dnsname"
)

// FuzzParseCSR: the parser of requests never panics, and what it accepts has a key that can be signed.
func FuzzParseCSR(f *testing.F) {
	key, err := keys.Generate()
	require.NoError(f, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(f, err)
	f.Add(csr(f, key))
	f.Add(csr(f, ed))
	f.Add([]byte{0x30, 0x00})
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := ParseCSR(der)
		if err != nil {
			if key != nil || err.Error() == "" {
				t.Fatalf("refused with key %v and error %q", key, err)
			}
			return
		}
		if err := checkKey(key); err != nil {
			t.Fatal(err)
		}
		if _, err := keyID(key); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzNames: the parsers of names never panic, and accept valid names only.
func FuzzNames(f *testing.F) {
	f.Add("spiffe://eu.example.org/web")
	f.Add("spiffe://eu.example.org/entente/member/a")
	f.Add("web.example.org")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseWorkloadID(s); err == nil && (id.String() != s || id.Path() == "" || len(s) > maxSPIFFEID) {
			t.Fatalf("%q was read as %s", s, id)
		}
		if dnsname.Check(s) == nil && (len(s) > 253 || strings.ToLower(s) != s || net.ParseIP(s) != nil) {
			t.Fatalf("%q was taken for a DNS name", s)
		}
	})
}
