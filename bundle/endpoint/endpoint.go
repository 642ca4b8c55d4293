// Package endpoint serves and fetches bundles by the SPIFFE bundle endpoint protocol.
//
// The serving side is a [Server] with a [Handler]: it serves the bundles of the hosted domains, the map of all domains,
// signed statements and OIDC discovery documents from memory, over the profiles https_web and https_spiffe, and bounds
// connections, headers and time. [Handler.Publish] replaces all documents at once.
//
// The fetching side is a [Client]. It authenticates the endpoint by the profile of a [Remote], follows redirects only
// within that profile, bounds the size and time of each fetch, and can keep connections between fetches
// ([Connections]). Every refusal has a name for a metric, which package bundle's Reason returns.
//
// The package never decides whether a fetched bundle replaces a stored one. Start reading at client.go and handler.go.
package endpoint

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle/internal/refusal"
)

// MaxURLBytes bounds an endpoint's URL, configured or redirected to.
const MaxURLBytes = 2048

// Profile is the way in which an endpoint proves its identity. A client never falls back from one profile to the other.
type Profile int

const (
	// HTTPSWeb is a certificate for the URL's host under the web's roots, or under private ones.
	HTTPSWeb Profile = iota + 1
	// HTTPSSPIFFE is an X509-SVID with an expected SPIFFE ID.
	HTTPSSPIFFE
)

func (p Profile) String() string {
	switch p {
	case HTTPSWeb:
		return "https_web"
	case HTTPSSPIFFE:
		return "https_spiffe"
	}
	return "unknown"
}

// Remote is a remote bundle endpoint: the domain, the URL and the profile, all configured and none inferred. [NewWeb]
// and [NewSPIFFE] make one.
type Remote struct {
	td      spiffeid.TrustDomain
	url     *url.URL
	profile Profile
	roots   *x509.CertPool // https_web; if nil, the system's
	id      spiffeid.ID    // https_spiffe
}

// NewWeb returns an endpoint under the https_web profile. The certificates in rootsPEM are the only roots that are
// accepted. If it is empty, the system's roots are.
func NewWeb(td spiffeid.TrustDomain, rawURL string, rootsPEM []byte) (Remote, error) {
	u, err := endpointURL(td, rawURL)
	if err != nil {
		return Remote{}, err
	}
	e := Remote{td: td, url: u, profile: HTTPSWeb}
	if len(rootsPEM) > 0 {
		roots, err := ParseRoots(rootsPEM)
		if err != nil {
			return Remote{}, fmt.Errorf("bundle endpoint of %s: %w: web roots: %w", td, ErrEndpoint, err)
		}
		e.roots = x509.NewCertPool()
		for _, root := range roots {
			e.roots.AddCert(root)
		}
	}
	return e, nil
}

// NewSPIFFE returns an endpoint under the https_spiffe profile with the expected SPIFFE ID.
func NewSPIFFE(td spiffeid.TrustDomain, rawURL string, id spiffeid.ID) (Remote, error) {
	u, err := endpointURL(td, rawURL)
	if err != nil {
		return Remote{}, err
	}
	if id.IsZero() || id.Path() == "" {
		return Remote{}, fmt.Errorf(
			"bundle endpoint of %s: %w: https_spiffe needs the endpoint's SPIFFE ID, with a path",
			td,
			ErrEndpoint,
		)
	}
	return Remote{td: td, url: u, profile: HTTPSSPIFFE, id: id}, nil
}

func endpointURL(td spiffeid.TrustDomain, rawURL string) (*url.URL, error) {
	if td.IsZero() {
		return nil, fmt.Errorf("%w: it needs the trust domain that its bundle is for", ErrEndpoint)
	}
	u, err := ParseURL(rawURL)
	if err != nil {
		return nil, fmt.Errorf("bundle endpoint of %s: %w", td, err)
	}
	return u, nil
}

// TrustDomain returns the domain whose bundle the endpoint serves.
func (e Remote) TrustDomain() spiffeid.TrustDomain { return e.td }

// URL returns the address at which each fetch begins. It is empty for the zero value.
func (e Remote) URL() string {
	if e.url == nil {
		return ""
	}
	return e.url.String()
}

// Profile returns the profile of the endpoint.
func (e Remote) Profile() Profile { return e.profile }

// ID returns the SPIFFE ID of an https_spiffe endpoint.
func (e Remote) ID() spiffeid.ID { return e.id }

// SelfServing reports whether the endpoint is verified with the bundle that it serves. Such a bundle has to be there
// before the first fetch.
func (e Remote) SelfServing() bool {
	return e.profile == HTTPSSPIFFE && e.id.TrustDomain() == e.td
}

// ParseURL parses the URL of a bundle endpoint: https, with a host, without user information or fragment.
func ParseURL(rawURL string) (*url.URL, error) {
	if len(rawURL) > MaxURLBytes {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrURL, len(rawURL), MaxURLBytes)
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("%w: %s does not parse", ErrURL, refusal.Clip(rawURL))
	}
	if err := checkURL(u); err != nil {
		return nil, err
	}
	return u, nil
}

// checkURL checks configured URLs and targets of redirects. Its errors do not contain user information.
func checkURL(u *url.URL) error {
	switch {
	case u.User != nil:
		return fmt.Errorf("%w: it has user information; an endpoint is read by everybody", ErrURL)
	case u.Scheme != "https":
		return fmt.Errorf(
			"%w: %s has scheme %s; https is needed",
			ErrURL,
			refusal.Clip(u.String()),
			refusal.Clip(u.Scheme),
		)
	case u.Opaque != "" || u.Hostname() == "":
		return fmt.Errorf("%w: %s has no host", ErrURL, refusal.Clip(u.String()))
	case u.Fragment != "" || strings.HasSuffix(u.String(), "#"):
		return fmt.Errorf("%w: %s has a fragment", ErrURL, refusal.Clip(u.String()))
	case len(u.String()) > MaxURLBytes:
		return fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrURL, len(u.String()), MaxURLBytes)
	}
	port := u.Port()
	if port == "" {
		if strings.HasSuffix(u.Host, ":") {
			return fmt.Errorf("%w: %s has a colon and no port", ErrURL, refusal.Clip(u.String()))
		}
		return nil
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf(
			"%w: %s has port %s; 1 to 65535 are allowed",
			ErrURL,
			refusal.Clip(u.String()),
			refusal.Clip(port),
		)
	}
	return nil
}

// RootsDigest returns SHA-256 over the DER of PEM certificates, in their order, or nil if there are none. Of one
// certificate it is its fingerprint.
func RootsDigest(data []byte) []byte {
	hash, n := sha256.New(), 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		hash.Write(block.Bytes)
		n++
	}
	if n == 0 {
		return nil
	}
	return hash.Sum(nil)
}

// ParseRoots reads PEM certificates, at least one. Text before a certificate is ignored. A block that cannot be read
// refuses the file: a root that is left out silently is an outage later. [pem.Decode] skips such blocks, so the
// beginnings of blocks are counted.
func ParseRoots(data []byte) (roots []*x509.Certificate, err error) {
	n := 0
	begun := bytes.Count(data, []byte("-----BEGIN"))
	for block, rest := pem.Decode(data); ; block, rest = pem.Decode(rest) {
		if block == nil {
			if n == 0 || len(bytes.TrimSpace(rest)) > 0 {
				return nil, fmt.Errorf("after %d certificates there is something that is not PEM", n)
			}
			if n != begun {
				return nil, fmt.Errorf("only %d of %d PEM blocks can be read", n, begun)
			}
			return roots, nil
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %d is %s, not CERTIFICATE", n+1, refusal.Clip(block.Type))
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", n+1, err)
		}
		roots = append(roots, cert)
		n++
	}
}
