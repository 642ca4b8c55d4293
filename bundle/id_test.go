package bundle_test

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

func TestParseID(t *testing.T) {
	long := strings.Repeat("a", 255)
	for _, test := range []struct{ id, err string }{
		{"spiffe://example.org", ""},
		{"spiffe://example.org/a/B/1._-", ""},
		{"spiffe://a_b-c.9/...", ""},
		{"spiffe://" + long + "/x", ""},
		{"spiffe://a/" + strings.Repeat("x", 2048-len("spiffe://a/")), ""},
		{"", `it does not begin with "spiffe://"`},
		{"https://example.org", `it does not begin with "spiffe://"`},
		{"SPIFFE://example.org", `it does not begin with "spiffe://"`},
		{"spiffe:///x", "the name is not a valid trust domain: it is empty"},
		{"spiffe://" + long + "a/x", `trust domain "` + strings.Repeat("a", 64) +
			`"…: the name is not a valid trust domain: it has 256 bytes; at most 255 are allowed`},
		{"spiffe://a/" + strings.Repeat("x", 2049-len("spiffe://a/")), "it has 2049 bytes; at most 2048 are allowed"},
		{"spiffe://Example.org",
			`trust domain "Example.org": the name is not a valid trust domain: byte 1 is 'E'; lower-case letters, ` +
				`digits, dot, dash and underscore are allowed`},
		{"spiffe://example.org:80/x", `byte 12 is ':'`},
		{"spiffe://me@example.org/x", `byte 3 is '@'`},
		{"spiffe://example.org?q", `byte 12 is '?'`},
		{"spiffe://ex%61mple.org/x", `byte 3 is '%'`},
		{"spiffe://example.org/x?q", "its path has the byte '?'"},
		{"spiffe://example.org/x#f", "its path has the byte '#'"},
		{"spiffe://example.org/%61", "its path has the byte '%'"},
		{"spiffe://example.org/", "its path has an empty segment or a trailing slash"},
		{"spiffe://example.org/x/", "its path has an empty segment or a trailing slash"},
		{"spiffe://example.org/x//y", "its path has an empty segment or a trailing slash"},
		{"spiffe://example.org/./y", `its path has the relative segment "."`},
		{"spiffe://example.org/y/..", `its path has the relative segment ".."`},
		{"spiffe://example.org/\x00", `its path has the byte '\x00'`},
	} {
		id, err := bundle.ParseID(test.id)
		if test.err == "" {
			require.NoError(t, err)
			require.Equal(t, test.id, id.String())
			continue
		}
		require.ErrorContains(t, err, test.err)
		require.ErrorIs(t, err, bundle.ErrID)
		require.True(t, id.IsZero())
	}
}

// TestGoSPIFFEParsersAreWider shows why this package has parsers of its own.
func TestGoSPIFFEParsersAreWider(t *testing.T) {
	long := strings.Repeat("a", 256)
	_, err := spiffeid.TrustDomainFromString(long)
	require.NoError(t, err)
	_, err = bundle.ParseTrustDomain(long)
	require.ErrorIs(t, err, bundle.ErrTrustDomain)

	_, err = spiffeid.FromString("spiffe://a/" + strings.Repeat("x", 4096))
	require.NoError(t, err)

	_, err = spiffeid.TrustDomainFromString("spiffe://example.org/path")
	require.NoError(t, err)
	_, err = bundle.ParseTrustDomain("spiffe://example.org/path")
	require.ErrorIs(t, err, bundle.ErrTrustDomain)
}

// The grammar of the standard as a second opinion.
var idGrammar = regexp.MustCompile(`^spiffe://[a-z0-9._-]{1,255}(/[a-zA-Z0-9._-]+)*$`)

func FuzzParseID(f *testing.F) {
	for _, seed := range []string{"spiffe://example.org/a", "spiffe://a/.", "spiffe://a//", "spiffe://a:1/x",
		"spiffe://A", "spiffe://a/x?y#z", "spiffe://a/%2e"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := bundle.ParseID(s)
		valid := len(s) <= 2048 && idGrammar.MatchString(s) && !strings.HasSuffix(s, "\n")
		for _, segment := range strings.Split(strings.TrimPrefix(s, "spiffe://"), "/")[1:] {
			valid = valid && segment != "." && segment != ".."
		}
		if valid != (err == nil) {
			t.Fatalf("%q: %v", s, err)
		}
		if err == nil && (id.String() != s || strings.Contains(id.TrustDomain().Name(), "/")) {
			t.Fatalf("%q became %q", s, id)
		}
	})
}

func FuzzParseTrustDomain(f *testing.F) {
	for _, seed := range []string{"example.org", "spiffe://a", "A", "a/b", ""} {
		f.Add(seed)
	}
	grammar := regexp.MustCompile(`\A[a-z0-9._-]{1,255}\z`)
	f.Fuzz(func(t *testing.T, s string) {
		td, err := bundle.ParseTrustDomain(s)
		if grammar.MatchString(s) != (err == nil) {
			t.Fatalf("%q: %v", s, err)
		}
		if err == nil && td.Name() != s {
			t.Fatalf("%q became %q", s, td)
		}
	})
}

// TestHostedTrustDomain: a name is refused exactly if Go's parser, which most peers have, refuses a certificate with
// it.
func TestHostedTrustDomain(t *testing.T) {
	key := bundletest.NewKey(t)
	for name, want := range map[string]string{
		"eu.example.org":         "",
		"eu-west_1.example.org":  "",
		"localhost":              "",
		"-":                      "",
		"_":                      "",
		"1.2":                    "",
		strings.Repeat("a", 255): "",
		"eu.example.org.": `trust domain "eu.example.org.": the name is not a valid trust domain: it has a dot at ` +
			`its end or two in a row, and cannot stand in an X509-SVID; write "eu.example.org"`,
		".example.org": `trust domain ".example.org": the name is not a valid trust domain: it has a dot at its end ` +
			`or two in a row, and cannot stand in an X509-SVID; write "example.org"`,
		"a..b.example.org": `trust domain "a..b.example.org": the name is not a valid trust domain: it has a dot at ` +
			`its end or two in a row, and cannot stand in an X509-SVID; write "a.b.example.org"`,
	} {
		_, err := bundle.ParseTrustDomain(name)
		require.NoError(t, err, "the standard allows it")
		_, err = bundle.ParseHostedTrustDomain(name)
		der, create := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(1), URIs: []*url.URL{{Scheme: "spiffe", Host: name, Path: "/web"}},
		}, &x509.Certificate{}, key.Public(), key)
		require.NoError(t, create)
		_, parse := x509.ParseCertificate(der)
		if want == "" {
			require.NoError(t, err)
			require.NoError(t, parse, name)
			continue
		}
		require.EqualError(t, err, want)
		require.Error(t, parse, name)
	}
	_, err := bundle.ParseHostedTrustDomain("EU")
	require.ErrorIs(t, err, bundle.ErrTrustDomain)
}
