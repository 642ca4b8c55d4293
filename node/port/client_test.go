package port_test

import (
	"crypto/tls"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
)

func newRegistry() *prometheus.Registry { return prometheus.NewRegistry() }

// clientCredentials are the credentials of a client that does not verify the member.
func clientCredentials(svid *tls.Certificate) credentials.TransportCredentials {
	return credentials.NewTLS(&tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // the tests are about the member's check of the client
		Certificates:       []tls.Certificate{*svid},
	})
}
