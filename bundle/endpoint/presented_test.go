package endpoint_test

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

// TestPresented: what a refused certificate looks like. Whatever it is, it can be no more than a description.
func TestPresented(t *testing.T) {
	ca, stranger := bundletest.NewAuthority(t, bundletest.Home), bundletest.NewAuthority(t, bundletest.Home)
	below := ca.Intermediate(t, bundletest.CATemplate(bundletest.Home))
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	site := func(c *x509.Certificate) { c.URIs = nil }
	uri := func(raw string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			u, err := url.Parse(raw)
			require.NoError(t, err)
			c.URIs = []*url.URL{u}
		}
	}
	const svid = "the endpoint authenticates by another profile than configured: it presents the X509-SVID " +
		"spiffe://eu.example.org/entente/bundle-endpoint"
	for _, test := range []struct {
		name, host string
		by         bundletest.Authority
		above      []*x509.Certificate
		adjust     func(*x509.Certificate)
		spiffe     string // the refusal where a web certificate is expected
		web        string // that where an X509-SVID is expected
		private    bool
	}{
		{"an X509-SVID", "localhost", ca, nil, func(*x509.Certificate) {}, svid, "", false},
		{"an X509-SVID of an unknown domain", "localhost", stranger, nil, func(*x509.Certificate) {}, svid, "", false},
		{"a web certificate", "localhost", ca, nil, site, "", "web", false},
		{"one for an address", "127.0.0.1", ca, nil, site, "", "web", false},
		{"one with its chain", "localhost", below, []*x509.Certificate{below.Cert}, site, "", "web", false},
		{"one of a private CA", "localhost", stranger, nil, site, "", "web", true},
		{"an expired one", "localhost", ca, nil, func(c *x509.Certificate) {
			c.URIs, c.NotAfter = nil, time.Now().Add(-time.Second)
		}, "", "web", false},
		{"one for another host", "peer.example.org", ca, nil, site, "", "", false},
		{"an https URI beside the host", "localhost", ca, nil, uri("https://localhost/"), "", "", false},
		{"an ID without a path", "localhost", ca, nil, uri("spiffe://eu.example.org"), "", "", false},
		{"an ID that is none", "localhost", ca, nil, uri("spiffe://EU.example.org/x"), "", "", false},
		{"two IDs", "localhost", ca, nil, func(c *x509.Certificate) {
			c.URIs = append(c.URIs, c.URIs[0])
		}, "", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			template := bundletest.SVIDTemplate(bundletest.EndpointID)
			test.adjust(template)
			chain := append([]*x509.Certificate{test.by.Sign(t, template).Leaf}, test.above...)
			if err := endpoint.PresentedSVID(chain); test.spiffe == "" {
				require.Nil(t, err)
			} else {
				require.EqualError(t, err, test.spiffe)
			}
			if err := endpoint.PresentedWeb(chain, test.host, roots, time.Now()); test.web == "" {
				require.Nil(t, err)
			} else {
				require.Equal(t,
					&endpoint.OtherProfileError{Profile: endpoint.HTTPSWeb, PrivateRoots: test.private}, err)
			}
		})
	}
	require.Nil(t, endpoint.PresentedSVID(nil))
	require.Nil(t, endpoint.PresentedWeb(nil, "localhost", roots, time.Now()))
}

// TestOtherHost: a certificate of a content delivery network names a hundred hosts.
func TestOtherHost(t *testing.T) {
	many := &x509.Certificate{IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}}
	for n := range 100 {
		many.DNSNames = append(many.DNSNames, fmt.Sprintf("%d.example.org", n))
	}
	require.Equal(t, `it is for "0.example.org", "1.example.org", "2.example.org", 98 more, not for "peer.example.org"`,
		endpoint.OtherHost(many, "peer.example.org"))
}
