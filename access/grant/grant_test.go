package grant_test

import (
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
)

func TestParseGrant(t *testing.T) {
	for name, test := range map[string]struct {
		role             grant.Role
		caller, td, path string
		refusal          string
	}{
		"the whole":        {grant.Issuer, "spiffe://eu.test/ci", "pay.test", "/web", ""},
		"for every domain": {grant.Operator, "spiffe://eu.test/ops", "", "", ""},
		"no role": {0, "spiffe://eu.test/ci", "", "",
			"role 0 is none of admin, operator, issuer, peer, discovery and reader"},
		"a role of the future": {77, "spiffe://eu.test/ci", "", "",
			"role 77 is none of admin, operator, issuer, peer, discovery and reader"},
		"no caller": {grant.Reader, "", "", "",
			`SPIFFE ID "": the string is not a valid SPIFFE ID: it does not begin with "spiffe://"`},
		"a long caller": {grant.Reader, "spiffe://eu.test/" + strings.Repeat("a", 2048), "", "",
			`SPIFFE ID "spiffe://eu.test/` + strings.Repeat("a",
				47) + `"…: the string is not a valid SPIFFE ID: it has 2065 bytes; at most 2048 are allowed`},
		"a domain as an ID": {grant.Reader, "spiffe://eu.test/ci", "spiffe://pay.test/x", "",
			`trust domain "spiffe://pay.test/x": the name is not a valid trust domain: write the name alone, without ` +
				`scheme or path`},
		"an URL": {grant.Reader, "https://eu.test/ci", "", "",
			`SPIFFE ID "https://eu.test/ci": the string is not a valid SPIFFE ID: it does not begin with "spiffe://"`},
		"a trust domain's ID": {grant.Reader, "spiffe://eu.test", "", "",
			`spiffe_id "spiffe://eu.test" names a whole trust domain: name one caller, as in spiffe://eu.test/ci`},
		"no trust domain": {grant.Reader, "spiffe://eu.test/ci", "PAY", "",
			`trust domain "PAY": the name is not a valid trust domain: byte 1 is 'P'; lower-case letters, digits, ` +
				`dot, dash and underscore are allowed`},
		"a path for a reader": {grant.Reader, "spiffe://eu.test/ci", "", "/web",
			"path_prefix is for the roles issuer and discovery: leave it out for reader"},
		"a path without slash": {grant.Issuer, "spiffe://eu.test/ci", "", "web",
			`path_prefix "web" is not a path of a SPIFFE ID: path must have a leading slash`},
		"a path with a slash": {grant.Issuer, "spiffe://eu.test/ci", "", "/web/",
			`path_prefix "/web/" is not a path of a SPIFFE ID: path cannot have a trailing slash`},
		"the reserved path": {grant.Issuer, "spiffe://eu.test/ci", "", "/entente/member",
			`path_prefix "/entente/member" is reserved: only the server itself issues IDs below /entente/`},
		"reserved for issuing": {grant.Discovery, "spiffe://eu.test/ci", "", "/entente/member", ""},
		"a path without end": {grant.Issuer, "spiffe://eu.test/ci", "", "/" + strings.Repeat("a", 3000),
			"path_prefix has 3001 bytes: a SPIFFE ID has 2048 at most"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := grant.Parse(&v1.Grant{Role: test.role, SpiffeId: test.caller, TrustDomain: test.td,
				PathPrefix: test.path})
			if test.refusal == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.refusal)
		})
	}
}

func TestHasPathPrefix(t *testing.T) {
	for _, test := range []struct {
		path, prefix string
		want         bool
	}{
		{"/ci", "", true},
		{"", "", true},
		{"/ci", "/ci", true},
		{"/ci/build", "/ci", true},
		{"/cinema", "/ci", false},
		{"/ci", "/ci/build", false},
		{"", "/ci", false},
		{"/a/ci", "/ci", false},
		{"/CI", "/ci", false},
	} {
		require.Equal(t, test.want, grant.HasPathPrefix(test.path, test.prefix), "%q below %q", test.path, test.prefix)
	}
}

// A prefix matches exactly the paths whose segments begin with its segments.
func FuzzHasPathPrefix(f *testing.F) {
	f.Add("/ci/build", "/ci")
	f.Add("/cinema", "/ci")
	f.Add("/entente", "/entente")
	f.Fuzz(func(t *testing.T, path, prefix string) {
		if spiffeid.ValidatePath(path) != nil || spiffeid.ValidatePath(prefix) != nil {
			return
		}
		segments, first := strings.Split(path, "/"), strings.Split(prefix, "/")
		want := len(segments) >= len(first)
		for i := range first {
			want = want && segments[i] == first[i]
		}
		if got := grant.HasPathPrefix(path, prefix); got != want {
			t.Errorf("HasPathPrefix(%q, %q) = %v, want %v", path, prefix, got, want)
		}
	})
}

// Every request yields either an error or a grant with exactly its fields.
func FuzzParseGrant(f *testing.F) {
	f.Add(int32(3), "spiffe://eu.test/ci", "pay.test", "/web", "web.test,.db.test")
	f.Add(int32(1), "spiffe://eu.test/ci", "", "", "")
	f.Fuzz(func(t *testing.T, role int32, caller, td, path, dns string) {
		var names []string
		if dns != "" {
			names = strings.Split(dns, ",")
		}
		g, err := grant.Parse(&v1.Grant{Role: grant.Role(role), SpiffeId: caller, TrustDomain: td,
			PathPrefix: path, DnsNames: names})
		if err != nil {
			return
		}
		again, err := grant.Parse(&v1.Grant{Role: g.Role, SpiffeId: g.Caller.String(),
			TrustDomain: g.TrustDomain.Name(), PathPrefix: g.PathPrefix, DnsNames: g.DNS.List()})
		if err != nil || again != g {
			t.Errorf("%+v came back as %+v: %v", g, again, err)
		}
		if td == "" != g.TrustDomain.IsZero() {
			t.Errorf("trust domain %q became %q", td, g.TrustDomain)
		}
	})
}
