package authority

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"
	zcrypto "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
)

var caller = access.WithCaller(
	context.Background(),
	access.SVIDCaller(spiffeid.RequireFromString("spiffe://eu.example.org/ci")),
)

// TestX509SVID holds what is issued against CONFORMANCE items 28 to 33, by go-spiffe and zlint.
func TestX509SVID(t *testing.T) {
	f, c := newSingle(t, nil)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	serials := map[string]bool{}
	for name, key := range map[string]crypto.Signer{"rsa": rsaKey, "p256": p256, "p384": p384, "ed25519": ed} {
		t.Run(name, func(t *testing.T) {
			// Only the key of a request is used.
			der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
				Subject: pkix.Name{
					CommonName: "root",
				}, DNSNames: []string{"bank.example"}, IPAddresses: []net.IP{{127, 0, 0, 1}},
				URIs: []*url.URL{spiffeid.RequireFromString("spiffe://other.example/admin").URL()},
			}, key)
			require.NoError(t, err)
			r, err := c.SVIDService().IssueX509SVID(caller, &ententev1.IssueX509SVIDRequest{
				SpiffeId: workload(1), Csr: der, DnsNames: []string{"web.example.org"},
			})
			require.NoError(t, err)
			id, _, err := x509svid.ParseAndVerify(r.GetCertificates(), f.bundle(home), x509svid.WithTime(f.now()))
			require.NoError(t, err)
			require.Equal(t, workload(1), id.String())
			chain := parse(t, r.GetCertificates())
			leaf, ca := chain[0], chain[1]
			require.Len(t, chain, 2)
			require.True(t, key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(leaf.PublicKey))
			require.Equal(t, []string{"web.example.org"}, leaf.DNSNames)
			require.Empty(t, leaf.IPAddresses)
			require.Empty(t, leaf.Subject.Names)
			require.True(t, slices.ContainsFunc(leaf.Extensions, func(e pkix.Extension) bool {
				return e.Critical && e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) // the subject alternative name
			}))
			require.False(t, leaf.IsCA)
			require.Equal(t, x509.KeyUsageDigitalSignature, leaf.KeyUsage)
			require.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
				leaf.ExtKeyUsage)
			require.Equal(t, svid.Backdate, f.now().Sub(leaf.NotBefore))
			require.Equal(t, plan.DefaultX509SVIDTTL, leaf.NotAfter.Sub(f.now()))
			require.Equal(t, leaf.NotAfter, r.GetExpireTime().AsTime())
			require.Greater(t, leaf.SerialNumber.BitLen(), 96, "a random 128-bit number is hardly ever shorter")
			require.False(t, serials[leaf.SerialNumber.String()])
			serials[leaf.SerialNumber.String()] = true
			require.Equal(t, "spiffe://eu.example.org", ca.URIs[0].String())
			require.True(t, ca.IsCA)
			require.Equal(t, string(f.bundle(home).Marshal()), string(r.GetBundle()))
			anchor := f.bundle(home).X509Authorities()[0]
			for _, certificate := range []*x509.Certificate{leaf, ca, anchor} {
				zlinted(t, certificate)
			}
		})
	}
}

// zlinted checks a certificate against the RFCs, without the rules of the CA/Browser Forum for public web certificates.
func zlinted(t *testing.T, c *x509.Certificate) {
	t.Helper()
	parsed, err := zcrypto.ParseCertificate(c.Raw)
	require.NoError(t, err)
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lint.SourceList{
		lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC8813,
	}})
	require.NoError(t, err)
	results := zlint.LintCertificateEx(parsed, registry)
	require.NotEmpty(t, results.Results)
	for name, result := range results.Results {
		require.LessOrEqual(t, result.Status, lint.Notice, "%s: %s %s", name, result.Status, result.Details)
	}
}

func TestJWTSVID(t *testing.T) {
	f, c := newSingle(t, nil)
	r, err := c.SVIDService().IssueJWTSVID(caller, jwtRequest("db", "spiffe://eu.example.org/db"))
	require.NoError(t, err)
	verified, err := jwtsvid.ParseAndValidate(r.GetToken(), f.bundle(home), []string{"db"})
	require.NoError(t, err)
	require.Equal(t, workload(1), verified.ID.String())
	require.Equal(t, []string{"db", "spiffe://eu.example.org/db"}, verified.Audience)
	require.Equal(t, f.now().Add(plan.DefaultJWTSVIDTTL).UTC(), verified.Expiry)
	require.Equal(t, verified.Expiry, r.GetExpireTime().AsTime())
	token, err := jwt.ParseSigned(r.GetToken(), []jose.SignatureAlgorithm{jose.ES256})
	require.NoError(t, err)
	require.Equal(t, r.GetAuthorityId(), token.Headers[0].KeyID)
	require.Equal(t, "JWT", token.Headers[0].ExtraHeaders[jose.HeaderType])
	_, err = jwtsvid.ParseAndValidate(r.GetToken(), f.bundle(home), []string{"mail"})
	require.ErrorContains(t, err, `expected audience in ["mail"]`)
}

func TestIssueRefusals(t *testing.T) {
	_, c := newSingle(t, nil)
	long := strings.Repeat("a", 2048)
	for name, test := range map[string]struct {
		change func(*ententev1.IssueX509SVIDRequest)
		code   codes.Code
		want   string
	}{
		"no ID": {
			func(r *ententev1.IssueX509SVIDRequest) { r.SpiffeId = "" }, codes.InvalidArgument,
			`spiffe_id "" is not a SPIFFE ID`,
		},
		"trust domain only": {
			func(r *ententev1.IssueX509SVIDRequest) { r.SpiffeId = "spiffe://eu.example.org" }, codes.InvalidArgument,
			`spiffe_id "spiffe://eu.example.org" names a trust domain; an SVID needs a path below it, such as ` +
				"spiffe://eu.example.org/web",
		},
		"trailing slash": {
			func(r *ententev1.IssueX509SVIDRequest) { r.SpiffeId += "/" }, codes.InvalidArgument, "not a SPIFFE ID",
		},
		"dots": {
			func(r *ententev1.IssueX509SVIDRequest) { r.SpiffeId = "spiffe://eu.example.org/a/../b" },
			codes.InvalidArgument, "not a SPIFFE ID",
		},
		"percent": {
			func(r *ententev1.IssueX509SVIDRequest) { r.SpiffeId = "spiffe://eu.example.org/%61" },
			codes.InvalidArgument, "not a SPIFFE ID",
		},
		"query": {
			func(r *ententev1.IssueX509SVIDRequest) { r.SpiffeId += "?a=b" }, codes.InvalidArgument, "not a SPIFFE ID",
		},
		"port": {
			func(r *ententev1.IssueX509SVIDRequest) { r.SpiffeId = "spiffe://eu.example.org:443/a" },
			codes.InvalidArgument, "not a SPIFFE ID",
		},
		"long": {
			func(r *ententev1.IssueX509SVIDRequest) { r.SpiffeId = "spiffe://eu.example.org/" + long },
			codes.InvalidArgument, "spiffe_id is 2072 bytes long; 2048 is the limit",
		},
		"not hosted": {
			func(r *ententev1.IssueX509SVIDRequest) { r.SpiffeId = "spiffe://us.example.org/web" }, codes.NotFound,
			"this cluster is not the authority for us.example.org; see domain list",
		},
		"reserved": {func(r *ententev1.IssueX509SVIDRequest) {
			r.SpiffeId = "spiffe://eu.example.org/entente/member/member-1"
		}, codes.PermissionDenied, "spiffe://eu.example.org/entente/member/member-1 is below /entente/, which only " +
			"the server itself issues; choose another path"},
		"reserved itself": {
			func(r *ententev1.IssueX509SVIDRequest) { r.SpiffeId = "spiffe://eu.example.org/entente" },
			codes.PermissionDenied, "only the server itself issues",
		},
		"no csr": {
			func(r *ententev1.IssueX509SVIDRequest) { r.Csr = nil }, codes.InvalidArgument,
			"csr is empty; send a PKCS #10 request, DER",
		},
		"garbage": {
			func(r *ententev1.IssueX509SVIDRequest) { r.Csr = []byte("garbage") }, codes.InvalidArgument,
			"csr is not a PKCS #10 request in DER",
		},
		"huge csr": {
			func(r *ententev1.IssueX509SVIDRequest) { r.Csr = make([]byte, 20000) }, codes.InvalidArgument,
			"csr is 20000 bytes long; 16384 is the limit",
		},
		"another's key": {
			func(r *ententev1.IssueX509SVIDRequest) { r.Csr[len(r.Csr)-1] ^= 1 }, codes.InvalidArgument,
			"csr is not signed by the key that it holds",
		},
		"ttl too long": {
			func(r *ententev1.IssueX509SVIDRequest) { r.Ttl = durationpb.New(2 * time.Hour) }, codes.InvalidArgument,
			"ttl is 2h0m0s; the domain allows 1h0m0s",
		},
		"ttl zero": {
			func(r *ententev1.IssueX509SVIDRequest) { r.Ttl = durationpb.New(0) }, codes.InvalidArgument,
			"ttl is 0s; it has to be a second at least",
		},
		"ttl negative": {
			func(r *ententev1.IssueX509SVIDRequest) { r.Ttl = durationpb.New(-time.Hour) }, codes.InvalidArgument,
			"it has to be a second at least",
		},
		"ttl broken": {
			func(r *ententev1.IssueX509SVIDRequest) { r.Ttl = &durationpb.Duration{Seconds: 1, Nanos: -5} },
			codes.InvalidArgument, "ttl is not a duration",
		},
		"ttl fraction": {
			func(r *ententev1.IssueX509SVIDRequest) { r.Ttl = durationpb.New(1500 * time.Millisecond) },
			codes.InvalidArgument, "ttl is 1.5s; certificates and tokens carry whole seconds",
		},
		"wildcard": {
			func(r *ententev1.IssueX509SVIDRequest) { r.DnsNames = []string{"*.example.org"} }, codes.InvalidArgument,
			`"*.example.org" is not a DNS name: its labels are 1 to 63 of a-z, 0-9 and -, without - at the ends`,
		},
		"IP as name": {
			func(r *ententev1.IssueX509SVIDRequest) { r.DnsNames = []string{"10.0.0.1"} }, codes.InvalidArgument,
			`"10.0.0.1" is not a DNS name: its last label is a number`,
		},
		"upper case": {
			func(r *ententev1.IssueX509SVIDRequest) { r.DnsNames = []string{"Web"} }, codes.InvalidArgument,
			`"Web" is not a DNS name`,
		},
		"empty name": {
			func(r *ententev1.IssueX509SVIDRequest) { r.DnsNames = []string{""} }, codes.InvalidArgument,
			"a DNS name is empty",
		},
		"name twice": {
			func(r *ententev1.IssueX509SVIDRequest) { r.DnsNames = []string{"web", "web"} }, codes.InvalidArgument,
			`DNS name "web" is requested twice`,
		},
		"too many names": {
			func(r *ententev1.IssueX509SVIDRequest) { r.DnsNames = make([]string, 33) }, codes.InvalidArgument,
			"33 DNS names are requested; 32 is the limit",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := x509Request(t, workload(1))
			test.change(r)
			_, err := c.SVIDService().IssueX509SVID(caller, r)
			require.Equal(t, test.code, status.Code(err), "%v", err)
			require.ErrorContains(t, err, test.want)
		})
	}
	for name, test := range map[string]struct {
		request *ententev1.IssueJWTSVIDRequest
		code    codes.Code
		want    string
	}{
		"no audience": {
			&ententev1.IssueJWTSVIDRequest{SpiffeId: workload(1)}, codes.InvalidArgument,
			"audience is empty; name who is to accept the token",
		},
		"empty audience": {
			jwtRequest(""), codes.InvalidArgument,
			"audience holds an empty entry",
		},
		"many audiences": {
			&ententev1.IssueJWTSVIDRequest{SpiffeId: workload(1), Audience: make([]string, 17)}, codes.InvalidArgument,
			"audience has 17 entries; 16 is the limit",
		},
		"long audience": {
			&ententev1.IssueJWTSVIDRequest{SpiffeId: workload(1), Audience: []string{long}}, codes.InvalidArgument,
			"audience holds an entry of 2048 bytes; 256 is the limit",
		},
		"unprintable": {
			jwtRequest("a\nb"), codes.InvalidArgument,
			"what is not printable text",
		},
		"reserved": {
			&ententev1.IssueJWTSVIDRequest{SpiffeId: "spiffe://eu.example.org/entente/x", Audience: []string{"a"}},
			codes.PermissionDenied, "only the server itself issues",
		},
		"longer than a day": {
			&ententev1.IssueJWTSVIDRequest{
				SpiffeId: workload(1), Audience: []string{"a"}, Ttl: durationpb.New(24 * time.Hour),
			},
			codes.InvalidArgument, "the domain allows 5m0s",
		},
	} {
		t.Run("jwt "+name, func(t *testing.T) {
			_, err := c.SVIDService().IssueJWTSVID(caller, test.request)
			require.Equal(t, test.code, status.Code(err), "%v", err)
			require.ErrorContains(t, err, test.want)
		})
	}
	require.Empty(t, refusedSignatures(c), "nothing that was refused reached the audit log as a signature")
}

func refusedSignatures(c *node) (found []audit.Event) {
	for _, e := range c.audit.about("sign x509-svid") {
		if !strings.HasPrefix(e.Caller, "member ") {
			found = append(found, e)
		}
	}
	return found
}

// TestWithoutAuditNoSignature: the line before is a condition of the signature, the one after of handing it out.
func TestWithoutAuditNoSignature(t *testing.T) {
	_, c := newSingle(t, nil)
	_, err := c.SVIDService().IssueX509SVID(caller, x509Request(t, workload(1)))
	require.NoError(t, err)
	var lines []audit.Event
	for _, e := range c.audit.about("sign x509-svid") {
		if e.Object == workload(1) {
			lines = append(lines, e)
		}
	}
	require.Len(t, lines, 2)
	require.Equal(t, audit.ResultBegun, lines[0].Result)
	require.Equal(t, audit.ResultDone, lines[1].Result)
	require.Equal(t, lines[0].Call, lines[1].Call)
	require.Equal(t, "spiffe://eu.example.org/ci", lines[0].Caller)
	require.Contains(t, lines[0].Detail, "serial "+lines[0].Call)

	for _, result := range []string{audit.ResultBegun, audit.ResultDone} {
		c.audit.refuseWhen(
			func(e audit.Event) bool { return e.Result == result && strings.HasPrefix(e.Action, "sign ") })
		r, err := c.SVIDService().IssueX509SVID(caller, x509Request(t, workload(1)))
		require.Nil(t, r)
		require.Equal(t, codes.Unavailable, status.Code(err))
		require.ErrorContains(t, err, "it cannot be audited: no space left on device")
		j, err := c.SVIDService().IssueJWTSVID(caller, jwtRequest("a"))
		require.Nil(t, j)
		require.ErrorContains(t, err, "it cannot be audited: no space left on device")
	}
}

// TestAllDNSNamesAreAudited: both audit lines contain all names of a certificate, even if they are as many and as long
// as possible.
func TestAllDNSNamesAreAudited(t *testing.T) {
	log := auditFile(t)
	_, c := newSingle(t, func(c *Config) { c.Audit = log })
	r := x509Request(t, workload(1))
	for i := range 32 {
		label := strings.Repeat("n", 61)
		r.DnsNames = append(r.DnsNames, fmt.Sprintf("%s.%s.%s.%s%02d", label, label, label, label, i))
	}
	_, err := c.SVIDService().IssueX509SVID(caller, r)
	require.NoError(t, err)
	tail, found := log.Tail(1000, false, nil), 0
	defer tail.Close()
	for {
		e, err := tail.Next(t.Context())
		if err != nil {
			break
		}
		if e.Action == "sign x509-svid" && e.Object == workload(1) {
			found++
			require.Contains(t, e.Detail, fmt.Sprintf("DNS names %q", r.GetDnsNames()))
		}
	}
	require.Equal(t, 2, found)
}
