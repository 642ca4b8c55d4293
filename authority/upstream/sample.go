package upstream

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/svid"
	verifier "github.com/ententehq/entente/bundle/svid"
)

// Sample has the names of the X509-SVID by which a CA certificate is tried before it is accepted.
type Sample struct {
	ID       spiffeid.ID
	DNSNames []string
	IPs      []netip.Addr
}

// SampleOf returns the names of a member's own SVID, with the host of its address and the name that all members share,
// in the home domain, and those of the bundle endpoint's SVID in another one.
func SampleOf(td, home spiffeid.TrustDomain, member, address, shared string) (Sample, error) {
	if td != home {
		id, err := svid.EndpointID(td)
		return Sample{ID: id}, err
	}
	id, err := svid.MemberID(home, member)
	if err != nil {
		return Sample{}, err
	}
	dnsNames, ips := svid.MemberNames(address, shared)
	return Sample{ID: id, DNSNames: dnsNames, IPs: ips}, nil
}

// prove signs a sample for a throw-away key and verifies it as its readers do: [verifier.Verify] has the rules of the
// SPIFFE standard and of OpenSSL, go-spiffe loads it as a workload does, and Go verifies it by its names as the
// certificate of a server, and as that of a client.
func prove(c Candidate) error {
	ca, anchor := c.Signed.Chain[0], c.Signed.Anchors[0]
	key, err := keys.Generate()
	if err != nil {
		return err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encode the key of a sample: %w", err)
	}
	leaf, err := svid.NewLeaf(c.Sample.ID, spki, c.Sample.DNSNames, c.Now, c.LongestSVID, ca)
	if err != nil {
		return err
	}
	leaf.IPs = c.Sample.IPs
	der, err := leaf.Sign(ca, c.Key, svid.LintLeaf(c.Sample.ID, ca))
	if err != nil {
		return fmt.Errorf("sign a sample: %w", err)
	}
	sample, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("read the sample: %w", err)
	}
	at := c.Now
	if sample.NotBefore.After(at) {
		at = sample.NotBefore
	}
	chain := append([]*x509.Certificate{sample}, c.Signed.Chain...)
	anchors := x509bundle.FromX509Authorities(c.TrustDomain, []*x509.Certificate{anchor})
	if _, err := verifier.Verify(chain, anchors, at); err != nil {
		return unusable(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the key of a sample: %w", err)
	}
	var raw []byte
	for _, cert := range chain {
		raw = append(raw, cert.Raw...)
	}
	if _, err := x509svid.ParseRaw(raw, pkcs8); err != nil {
		return unusable(fmt.Errorf("go-spiffe refuses it: %w", err))
	}
	if _, _, err := x509svid.Verify(chain, anchors, x509svid.WithTime(at)); err != nil {
		return unusable(fmt.Errorf("go-spiffe refuses it: %w", err))
	}
	return byNames(sample, c, at)
}

// byNames verifies a sample as a Go program without SPIFFE does.
func byNames(sample *x509.Certificate, c Candidate, at time.Time) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(c.Signed.Anchors[0])
	for _, cert := range c.Signed.Chain {
		between.AddCert(cert)
	}
	hosts := slices.Clone(c.Sample.DNSNames)
	for _, ip := range c.Sample.IPs {
		hosts = append(hosts, ip.String())
	}
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	for _, host := range hosts {
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			_, err := sample.Verify(x509.VerifyOptions{
				Roots: roots, Intermediates: between, CurrentTime: at, DNSName: host,
				KeyUsages: []x509.ExtKeyUsage{usage},
			})
			if err != nil {
				return unusable(fmt.Errorf("Go refuses it: %w", err)) //nolint:staticcheck // ST1005: Go is a name
			}
		}
	}
	return nil
}

// ErrUnusable is wrapped if verifiers refuse what the upstream's certificate signs.
var ErrUnusable = errors.New("verifiers refuse X509-SVIDs below the upstream's issuer, so that nothing is signed there")

// unusable returns [ErrUnusable] with the reason. A misfit within err names the certificate and the extension, so that
// the rest of err is left out.
func unusable(err error) error {
	var misfit *verifier.Misfit
	if errors.As(err, &misfit) {
		err = misfit
	}
	return fmt.Errorf("%w: %w", ErrUnusable, err)
}
