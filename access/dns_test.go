package access_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
)

func TestParseGrantWithDNSNames(t *testing.T) {
	many := make([]string, 33)
	for i := range many {
		many[i] = fmt.Sprintf("n%d.test", i)
	}
	for name, test := range map[string]struct {
		role    grant.Role
		dns     []string
		want    grant.DNSPatterns
		refusal string
	}{
		"none":         {grant.Issuer, nil, "", ""},
		"in one order": {grant.Issuer, []string{"web.test", ".db.test", "web.test"}, ".db.test web.test", ""},
		"for a reader": {grant.Reader, []string{"web.test"}, "",
			"dns_names is for the role issuer: leave it out for reader"},
		"for an admin": {grant.Admin, []string{"web.test"}, "",
			"dns_names is for the role issuer: leave it out for admin"},
		"empty": {grant.Issuer, []string{""}, "",
			"dns_names: a DNS name is empty; write web.example.org for one name, or .example.org for all below it"},
		"everything": {grant.Issuer, []string{"."}, "",
			"dns_names: a DNS name is empty; write web.example.org for one name, or .example.org for all below it"},
		"a wildcard": {grant.Issuer, []string{"*.test"}, "",
			`dns_names: "*.test" is not a DNS name: its labels are 1 to 63 of a-z, 0-9 and -, without - at the ends; ` +
				`write web.example.org for one name, or .example.org for all below it`},
		"two dots": {grant.Issuer, []string{"..test"}, "",
			`dns_names: ".test" is not a DNS name: its labels are 1 to 63 of a-z, 0-9 and -, without - at the ends; ` +
				`write web.example.org for one name, or .example.org for all below it`},
		"an IP address": {grant.Issuer, []string{"10.0.0.1"}, "",
			`dns_names: "10.0.0.1" is not a DNS name: its last label is a number; write web.example.org for one ` +
				`name, or .example.org for all below it`},
		"far too many": {grant.Issuer, many, "",
			"dns_names lists 33 names: list 32 at most, or a suffix such as .example.org for many"},
		"two in one": {grant.Issuer, []string{"a.test b.test"}, "",
			`dns_names: "a.test b.test" is not a DNS name: its labels are 1 to 63 of a-z, 0-9 and -, without - at ` +
				`the ends; write web.example.org for one name, or .example.org for all below it`},
		"in upper case": {grant.Issuer, []string{"Web.test"}, "",
			`dns_names: "Web.test" is not a DNS name: its labels are 1 to 63 of a-z, 0-9 and -, without - at the ` +
				`ends; write web.example.org for one name, or .example.org for all below it`},
		"a single label": {grant.Issuer, []string{"db"}, "db", ""},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := grant.Parse(&v1.Grant{Role: test.role, SpiffeId: "spiffe://eu.test/ci",
				TrustDomain: "pay.test", DnsNames: test.dns})
			if test.refusal != "" {
				require.EqualError(t, err, test.refusal)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, g.DNS)
		})
	}
}

// TestDecideOnDNSNames: an issuer puts a DNS name into a certificate only where one grant has both the ID and every
// name.
func TestDecideOnDNSNames(t *testing.T) {
	ci := access.SVIDCaller(spiffeid.RequireFromString("spiffe://eu.test/ci"))
	issuer := func(path string, dns ...string) grant.Grant {
		g, err := grant.Parse(&v1.Grant{Role: grant.Issuer, SpiffeId: "spiffe://eu.test/ci",
			TrustDomain: "pay.test", PathPrefix: path, DnsNames: dns})
		require.NoError(t, err)
		return g
	}
	of := func(grants ...grant.Grant) []grant.Grant { return grants }
	names := func(names ...string) []string { return names }
	for name, test := range map[string]struct {
		caller  access.Caller
		grants  []grant.Grant
		names   []string
		allowed bool
	}{
		"no name":                        {ci, of(issuer("")), nil, true},
		"no name, and a grant with some": {ci, of(issuer("", "web.test")), nil, true},
		"a name that no grant has":       {ci, of(issuer("")), names("web.test"), false},
		"the name":                       {ci, of(issuer("", "web.test")), names("web.test"), true},
		"one name more": {ci, of(issuer("", "web.test")), names("web.test", "db.test"),
			false},
		"another that ends alike": {ci, of(issuer("", "web.test")), names("myweb.test"), false},
		"below a name":            {ci, of(issuer("", "web.test")), names("a.web.test"), false},
		"below a suffix":          {ci, of(issuer("", ".web.test")), names("a.web.test"), true},
		"far below a suffix":      {ci, of(issuer("", ".web.test")), names("a.b.web.test"), true},
		"the suffix itself":       {ci, of(issuer("", ".web.test")), names("web.test"), false},
		"a suffix within a label": {ci, of(issuer("", ".web.test")), names("a.myweb.test"), false},
		"both of one grant": {ci, of(issuer("", ".web.test", "db")), names("db", "a.web.test"),
			true},
		"each of another grant": {ci, of(issuer("", ".web.test"), issuer("", "db")),
			names("db", "a.web.test"), false},
		"ID of one, name of another": {ci, of(issuer("/web"), issuer("/db", "web.test")),
			names("web.test"), false},
		"an administrator of the domain": {ci, of(granted(t, grant.Admin, "pay.test", "")), names("web.test"),
			true},
		"an administrator elsewhere": {ci, of(granted(t, grant.Admin, "eu.test", "")), names("web.test"),
			false},
		"the admin socket":                          {access.SocketCaller(0, 1), nil, names("web.test"), true},
		"a wildcard":                                {ci, of(issuer("", ".web.test")), names("*.web.test"), false},
		"a wildcard, admin socket":                  {access.SocketCaller(0, 1), nil, names("*.web.test"), false},
		"a name with the suffix's dot and no label": {ci, of(issuer("", ".web.test")), names(".web.test"), false},
	} {
		t.Run(name, func(t *testing.T) {
			method := v1.SVIDService_IssueX509SVID_FullMethodName
			rule := access.Rules()[method]
			var request proto.Message = &v1.IssueX509SVIDRequest{SpiffeId: "spiffe://pay.test/web",
				DnsNames: test.names}
			err := access.Decide(access.Call{Method: method, Rule: rule, Caller: test.caller, Grants: test.grants,
				Target: rule.Target(request)}, world)
			require.Equal(t, test.allowed, err == nil, "%v", err)
		})
	}
	rule := access.Rules()[v1.SVIDService_IssueX509SVID_FullMethodName]
	err := access.Decide(access.Call{
		Method: v1.SVIDService_IssueX509SVID_FullMethodName, Rule: rule, Caller: ci,
		Grants: of(issuer("/web", ".web.test")),
		Target: access.Target{SPIFFEID: "spiffe://pay.test/web", DNSNames: names("db.test", "a.web.test")},
	}, world)
	require.EqualError(t, err, "spiffe://eu.test/ci may not call SVIDService/IssueX509SVID: it needs the role issuer "+
		"or admin in pay.test for the path /web with the DNS names a.web.test, db.test, and has issuer in pay.test "+
		"below /web with DNS names .web.test. To allow it, an administrator runs: entente access grant issuer "+
		"--spiffe-id spiffe://eu.test/ci --domain pay.test --path /web --dns a.web.test --dns db.test")
	var refusal *access.Refusal
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, access.ReasonDNS, refusal.Reason)
	require.False(t, strings.Contains(err.Error(), "%!"))
}
