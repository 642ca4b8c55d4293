package svid

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/dnsname"
)

const (
	// maxCSR is far above a request with an RSA key of maxRSABits.
	maxCSR = 16 << 10
	// maxRSABits bounds the work of verifying a request's signature.
	maxRSABits = 8192
	minRSABits = 2048
	// maxSPIFFEID is the limit of the SPIFFE ID specification, in bytes.
	maxSPIFFEID = 2048
	// maxDNSNames keeps a certificate well below what TLS stacks accept.
	maxDNSNames = 32
	// maxAudiences and maxAudience keep a token below the 8 KiB that HTTP servers accept as a header.
	maxAudiences = 16
	maxAudience  = 256

	// ReservedSegment is the first path segment that only the server itself issues.
	ReservedSegment = "entente"
)

// ParseCSR returns the public key of a PKCS #10 request. Its signature proves that the caller has the private key. The
// rest of the request is ignored.
func ParseCSR(der []byte) (crypto.PublicKey, error) {
	switch {
	case len(der) == 0:
		return nil, errors.New("csr is empty; send a PKCS #10 request, DER")
	case len(der) > maxCSR:
		return nil, fmt.Errorf("csr is %d bytes long; %d is the limit", len(der), maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("csr is not a PKCS #10 request in DER: %w", err)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, err
	}
	switch csr.SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS,
		x509.SHA512WithRSAPSS, x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519:
	default:
		return nil, fmt.Errorf("csr is signed with %v; use SHA-256 or better, or Ed25519", csr.SignatureAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("csr is not signed by the key that it holds: %w", err)
	}
	return csr.PublicKey, nil
}

// checkKey returns an error for a key that is weak, or that some TLS 1.3 stack in use cannot verify.
func checkKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return fmt.Errorf("the key is on curve %s; use P-256 or P-384", key.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("the RSA key has %d bits; use %d to %d", bits, minRSABits, maxRSABits)
		}
		if key.E < 3 || key.E%2 == 0 {
			return fmt.Errorf("the RSA key has the exponent %d; use 65537", key.E)
		}
	case ed25519.PublicKey:
	default:
		return errors.New("the key is of no supported type; use ECDSA P-256 or P-384, RSA with 2048 bits or more, " +
			"or Ed25519")
	}
	return nil
}

// ParseWorkloadID parses a SPIFFE ID that an SVID can have.
func ParseWorkloadID(s string) (spiffeid.ID, error) {
	if len(s) > maxSPIFFEID {
		return spiffeid.ID{}, fmt.Errorf("spiffe_id is %d bytes long; %d is the limit", len(s), maxSPIFFEID)
	}
	id, err := spiffeid.FromString(s)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("spiffe_id %q is not a SPIFFE ID: %w", s, err)
	}
	if len(id.TrustDomain().Name()) > 255 {
		return spiffeid.ID{}, fmt.Errorf("the trust domain of spiffe_id is %d bytes long; 255 is the limit",
			len(id.TrustDomain().Name()))
	}
	if id.Path() == "" {
		return spiffeid.ID{}, fmt.Errorf(
			"spiffe_id %q names a trust domain; an SVID needs a path below it, such as %s/web", s, s)
	}
	return id, nil
}

func checkDNSNames(names []string) error {
	if len(names) > maxDNSNames {
		return fmt.Errorf("%d DNS names are requested; %d is the limit", len(names), maxDNSNames)
	}
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		if err := dnsname.Check(name); err != nil {
			return err
		}
		if seen[name] {
			return fmt.Errorf("DNS name %q is requested twice", name)
		}
		seen[name] = true
	}
	return nil
}

// checkAudience returns an error if the audience of a JWT-SVID is invalid.
func checkAudience(audience []string) error {
	if len(audience) == 0 {
		return errors.New("audience is empty; name who is to accept the token")
	}
	if len(audience) > maxAudiences {
		return fmt.Errorf("audience has %d entries; %d is the limit", len(audience), maxAudiences)
	}
	for _, a := range audience {
		switch {
		case a == "":
			return errors.New("audience holds an empty entry")
		case len(a) > maxAudience:
			return fmt.Errorf("audience holds an entry of %d bytes; %d is the limit", len(a), maxAudience)
		case !utf8.ValidString(a) || strings.ContainsFunc(a, unicode.IsControl):
			return fmt.Errorf("audience entry %q holds what is not printable text", a)
		}
	}
	return nil
}

// X509Request is a valid request for an X509-SVID.
type X509Request struct {
	ID       spiffeid.ID
	SPKI     []byte
	DNSNames []string
	TTL      time.Duration // 0 for that of the domain
}

// ParseX509Request parses a request from outside. Its errors are meant for the sender.
func ParseX509Request(r *ententev1.IssueX509SVIDRequest) (X509Request, error) {
	id, err := ParseWorkloadID(r.GetSpiffeId())
	if err != nil {
		return X509Request{}, apierror.InField("spiffe_id", err)
	}
	key, err := ParseCSR(r.GetCsr())
	if err != nil {
		return X509Request{}, apierror.InField("csr", err)
	}
	if err := checkDNSNames(r.GetDnsNames()); err != nil {
		return X509Request{}, apierror.InField("dns_names", err)
	}
	ttl, err := parseTTL(r.GetTtl())
	if err != nil {
		return X509Request{}, apierror.InField("ttl", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return X509Request{}, fmt.Errorf("the key of the csr cannot be encoded: %w", err)
	}
	return X509Request{ID: id, SPKI: spki, DNSNames: r.GetDnsNames(), TTL: ttl}, nil
}

// JWTRequest is a valid request for a JWT-SVID.
type JWTRequest struct {
	ID       spiffeid.ID
	Audience []string
	TTL      time.Duration // 0 for that of the domain
}

// ParseJWTRequest parses a request from outside. Its errors are meant for the sender.
func ParseJWTRequest(r *ententev1.IssueJWTSVIDRequest) (JWTRequest, error) {
	id, err := ParseWorkloadID(r.GetSpiffeId())
	if err != nil {
		return JWTRequest{}, apierror.InField("spiffe_id", err)
	}
	if err := checkAudience(r.GetAudience()); err != nil {
		return JWTRequest{}, apierror.InField("audience", err)
	}
	ttl, err := parseTTL(r.GetTtl())
	if err != nil {
		return JWTRequest{}, apierror.InField("ttl", err)
	}
	return JWTRequest{ID: id, Audience: r.GetAudience(), TTL: ttl}, nil
}

// Lifetime returns the requested lifetime, or that of the domain if none is requested. The latter is also the longest.
func Lifetime(requested, domain time.Duration) (time.Duration, error) {
	switch {
	case requested == 0:
		return domain, nil
	case requested > domain:
		return 0, fmt.Errorf("ttl is %v; the domain allows %v: request less, or raise it with 'entente domain update'",
			requested, domain)
	}
	return requested, nil
}

// parseTTL parses a requested lifetime. It returns 0 if none is requested.
func parseTTL(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if !d.IsValid() {
		return 0, fmt.Errorf("ttl is not a duration: it has %d seconds and %d nanoseconds",
			d.GetSeconds(), d.GetNanos())
	}
	ttl := d.AsDuration()
	switch {
	case ttl < time.Second:
		return 0, fmt.Errorf("ttl is %v; it has to be a second at least", ttl)
	case ttl%time.Second != 0:
		return 0, fmt.Errorf("ttl is %v; certificates and tokens carry whole seconds", ttl)
	}
	return ttl, nil
}
