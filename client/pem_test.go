package client

import (
	"bytes"
	"encoding/pem"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzParseAuthorities(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMA==\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := parseAuthorities(data)
		if err != nil {
			return
		}
		require.NotEmpty(t, all)
		require.Equal(t, bytes.Count(data, []byte("-----BEGIN")), len(all), "a block was skipped")
	})
}

func TestParseAuthoritiesRejectsInvalidBlocks(t *testing.T) {
	broken := []byte("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
	_, err := parseAuthorities(broken)
	require.EqualError(t, err, "has 1 PEM blocks, of which 0 can be read: make it again with 'entente bundle show "+
		"--format pem'")
	_, err = parseAuthorities([]byte("nothing"))
	require.EqualError(t, err, "has no PEM certificate: make it with 'entente bundle show --format pem' or "+
		"'entente svid x509'")
	_, err = parseAuthorities(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no certificate")}))
	require.EqualError(t, err, "has a PEM block that is not a certificate: make it again with 'entente bundle show "+
		"--format pem'")
}
