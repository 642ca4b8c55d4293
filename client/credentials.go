package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"
)

const (
	// memberPath is the path of the members of a cluster in their home trust domain.
	memberPath = "/entente/member/"
	// endpointPath is the path of a bundle endpoint, which is another port of the same machine.
	endpointPath = "/entente/bundle-endpoint"
)

// bundleEndpoint is how a handshake with a bundle endpoint fails. The text reaches [wrap] through gRPC.
const bundleEndpoint = "the address is that of a bundle endpoint, which does not serve the API: use the cluster " +
	"port, 7440 by default"

// WithFiles authenticates with an X509-SVID in PEM files, as 'entente svid x509' writes them: the certificate with its
// intermediates, its private key with a mode that gives no other user access, and the X.509 authorities of the
// cluster's home trust domain. The files are read at each handshake, so that a renewed SVID is used for the next
// connection.
func WithFiles(certFile, keyFile, bundleFile string) Option {
	files := credentialFiles{certFile, keyFile, bundleFile}
	return func(c *config) error {
		if _, err := files.GetX509SVID(); err != nil {
			return err
		}
		if _, err := files.GetX509BundleForTrustDomain(spiffeid.TrustDomain{}); err != nil {
			return err
		}
		return c.authenticate(files, files, isMember)
	}
}

// PEM is an X509-SVID and the bundle to verify members with, in PEM.
type PEM struct {
	// Certificate is the certificate of the SVID, followed by its intermediates.
	Certificate []byte
	// Key is the private key of the certificate.
	Key []byte
	// Bundle holds the X.509 authorities of the cluster's home trust domain.
	Bundle []byte
}

// WithPEM authenticates with an X509-SVID in memory. load is called by New, and at each handshake from any goroutine;
// it returns the present credentials. The client does not keep them.
func WithPEM(load func() (PEM, error)) Option {
	return func(c *config) error {
		source := pemSource(load)
		if _, err := source.GetX509SVID(); err != nil {
			return err
		}
		if _, err := source.GetX509BundleForTrustDomain(spiffeid.TrustDomain{}); err != nil {
			return err
		}
		return c.authenticate(source, source, isMember)
	}
}

// WithSource authenticates with sources of go-spiffe, such as an [X509Source] or a workloadapi.X509Source. home is the
// cluster's home trust domain: only its members are accepted. The sources are read at each handshake; they belong to
// the caller and must outlive the client.
func WithSource(home spiffeid.TrustDomain, svids x509svid.Source, bundles x509bundle.Source) Option {
	return func(c *config) error {
		if home.IsZero() {
			return errors.New("the home trust domain of the cluster is empty")
		}
		return c.authenticate(svids, bundles, func(id spiffeid.ID, chains [][]*x509.Certificate) error {
			if !id.MemberOf(home) {
				return fmt.Errorf("the server is %s, which is not in the home trust domain %s", id, home.Name())
			}
			return isMember(id, chains)
		})
	}
}

// authenticate sets mutual TLS 1.3.
func (c *config) authenticate(svids x509svid.Source, bundles x509bundle.Source, server tlsconfig.Authorizer) error {
	if c.creds != nil {
		return errors.New("the client has several credentials: use one of WithFiles, WithPEM and WithSource")
	}
	// The server is verified in a hook that a resumed session skips. Without a session cache none is resumed.
	tlsConfig := tlsconfig.MTLSClientConfig(svids, bundles, server)
	tlsConfig.MinVersion = tls.VersionTLS13
	c.creds = credentials.NewTLS(tlsConfig)
	return nil
}

// isMember accepts servers whose ID is that of a member.
func isMember(id spiffeid.ID, _ [][]*x509.Certificate) error {
	if id.Path() == endpointPath {
		return errors.New(bundleEndpoint)
	}
	if name, ok := strings.CutPrefix(id.Path(), memberPath); !ok || name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("the server is %s, which is not a member of a cluster (spiffe://DOMAIN%sID)", id, memberPath)
	}
	return nil
}
