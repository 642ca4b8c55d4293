package join

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNamingPort joins at servers that are no cluster ports, with the TLS of a joiner.
func TestNamingPort(t *testing.T) {
	web := httptest.NewTLSServer(http.NotFoundHandler())
	defer web.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	const meant = ": join.addresses needs the cluster port of a member, 7440 unless its member.listen has another: "
	for name, test := range map[string]struct{ address, want string }{
		"a bundle endpoint": {
			web.Listener.Addr().String(), "it is not a cluster port, but a bundle endpoint or another TLS server" +
				meant + "remote error: tls: no application protocol",
		},
		"the operations port": {
			plain.Listener.Addr().String(), "it is not a cluster port, but the operations port or another server " +
				"without TLS" + meant + "tls: first record does not look like a TLS handshake",
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", test.address)
			require.NoError(t, err)
			defer conn.Close()
			err = tls.Client(conn, &tls.Config{
				MinVersion: tls.VersionTLS13, NextProtos: []string{"entente-join/1"}, InsecureSkipVerify: true,
			}).HandshakeContext(t.Context())
			require.EqualError(t, namingPort(err), test.want)
		})
	}
	other := errors.New("connection refused")
	require.Equal(t, other, namingPort(other))
	require.NoError(t, namingPort(nil))
}
