package endpoint

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/refusal"
)

// OtherProfileError refuses an endpoint whose certificate is one of the other profile than configured. Nothing in the
// certificate is verified: it only describes what to compare with the operator of the endpoint.
type OtherProfileError struct {
	// Profile is the profile that the certificate fits.
	Profile Profile
	// ID is the SPIFFE ID in the certificate, under [HTTPSSPIFFE].
	ID spiffeid.ID
	// PrivateRoots means that the system's roots do not verify the certificate, under [HTTPSWeb].
	PrivateRoots bool
}

func (e *OtherProfileError) Error() string {
	if e.Profile == HTTPSSPIFFE {
		return fmt.Sprintf("%s: it presents the X509-SVID %s", ErrOtherProfile, e.ID)
	}
	return fmt.Sprintf("%s: it presents a web certificate for its host, and no X509-SVID", ErrOtherProfile)
}

// Unwrap returns [ErrOtherProfile].
func (e *OtherProfileError) Unwrap() error { return ErrOtherProfile }

// UnexpectedIDError refuses an endpoint whose X509-SVID is verified and has another ID than expected.
type UnexpectedIDError struct{ Presented, Expected spiffeid.ID }

func (e *UnexpectedIDError) Error() string {
	return fmt.Sprintf("%s: it is %s, expected is %s", ErrUnexpectedEndpointID, e.Presented, e.Expected)
}

// Unwrap returns [ErrUnexpectedEndpointID].
func (e *UnexpectedIDError) Unwrap() error { return ErrUnexpectedEndpointID }

// presentedSVID returns the refusal of an https_web endpoint that presents an X509-SVID, or nil.
func presentedSVID(chain []*x509.Certificate) *OtherProfileError {
	if len(chain) == 0 || len(chain[0].URIs) != 1 {
		return nil
	}
	if id, err := bundle.ParseID(chain[0].URIs[0].String()); err == nil && id.Path() != "" {
		return &OtherProfileError{Profile: HTTPSSPIFFE, ID: id}
	}
	return nil
}

// maxPresented bounds the certificates of an unauthenticated endpoint that are examined.
const maxPresented = 8

// presentedWeb returns the refusal of an https_spiffe endpoint that presents a web certificate for its host, or nil. If
// roots is nil, the system's are used.
func presentedWeb(chain []*x509.Certificate, host string, roots *x509.CertPool, now time.Time) *OtherProfileError {
	if len(chain) == 0 || len(chain) > maxPresented || len(chain[0].URIs) > 0 {
		return nil
	}
	if forHost := chain[0].VerifyHostname(host) == nil; !forHost {
		return nil
	}
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: now})
	var unknown x509.UnknownAuthorityError
	return &OtherProfileError{Profile: HTTPSWeb, PrivateRoots: errors.As(err, &unknown)}
}

// otherHost describes the hosts that a certificate is for instead of a host name.
func otherHost(cert *x509.Certificate, host string) string {
	var names []string
	for _, name := range cert.DNSNames {
		names = append(names, refusal.Clip(name))
	}
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	const most = 3
	switch n := len(names); {
	case n == 0:
		return fmt.Sprintf("it names no host, and %s is needed", refusal.Clip(host))
	case n > most:
		names = append(names[:most], fmt.Sprintf("%d more", n-most))
	}
	return fmt.Sprintf("it is for %s, not for %s", strings.Join(names, ", "), refusal.Clip(host))
}
