package invitation

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
)

// TestParseWebRoots: web roots come from another cluster, and decide whose bundle is trusted.
func TestParseWebRoots(t *testing.T) {
	root := federationtest.NewAuthority(t, "us.example.org").PEM()
	other := federationtest.NewAuthority(t, "us.example.org").PEM()
	old := federationtest.NewAuthorityUntil(t, "us.example.org", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)).PEM()
	key := []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	for _, test := range []struct {
		name string
		data []byte
		want string // the refusal; empty: the roots are accepted
		out  []byte
	}{
		{"none", nil, "", nil},
		{"one", root, "", root},
		{"one twice", append(bytes.Clone(root), root...), "", root},
		{"two", append(bytes.Clone(root), other...), "", append(bytes.Clone(root), other...)},
		{"text before one", append([]byte("# the root of us\n"), root...), "", root},
		{"text after one", append(bytes.Clone(root), "\x1b[2J"...),
			"its web roots: after 1 certificates there is something that is not PEM", nil},
		{"text alone", []byte("root"), "its web roots: after 0 certificates there is something that is not PEM", nil},
		{"a private key", append(bytes.Clone(root), key...),
			`its web roots: PEM block 2 is "PRIVATE KEY", not CERTIFICATE`, nil},
		{"a broken certificate", []byte(strings.Replace(string(root), "\nMII", "\nMIJ", 1)),
			"its web roots: certificate 1: x509: malformed certificate", nil},
		{"an expired one beside another", append(bytes.Clone(old), root...), "", root},
		{"an expired one", old, "its web root 1 expired at 2026-01-02T03:04:05Z, and no other is left", nil},
		{"too many", bytes.Repeat(root, 17), "it has 17 web roots; 16 are the most", nil},
		{"too large", bytes.Repeat([]byte(" "), 32<<10+1), "its web roots have 32769 bytes; 32768 are the most", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, expired, err := relationship.ParseWebRoots(test.data, time.Now())
			if test.want != "" {
				require.EqualError(t, err, test.want)
				return
			}
			require.NoError(t, err)
			require.Equal(t, string(test.out), string(out))
			require.Equal(t, bytes.HasPrefix(test.data, old), len(expired) == 1)
			again, _, err := relationship.ParseWebRoots(out, time.Now())
			require.NoError(t, err)
			require.Equal(t, out, again)
		})
	}
}

// TestMergeWebRoots: whichever member merges the roots of all, and in whichever order, gets the same.
func TestMergeWebRoots(t *testing.T) {
	now := time.Now()
	one := federationtest.NewAuthority(t, "us.example.org").PEM()
	two := federationtest.NewAuthority(t, "us.example.org").PEM()
	old := federationtest.NewAuthorityUntil(t, "us.example.org", now.Add(-time.Hour)).PEM()
	merged := relationship.MergeWebRoots([][]byte{one, two}, now)
	require.Len(t, merged, len(one)+len(two))
	for name, lists := range map[string][][]byte{
		"the other order":   {two, one},
		"both of each":      {append(bytes.Clone(one), two...), append(bytes.Clone(two), one...)},
		"a member has none": {two, nil, one},
		"one has expired":   {two, append(bytes.Clone(old), one...)},
		"all of a member's": {old, one, two},
	} {
		require.Equal(t, string(merged), string(relationship.MergeWebRoots(lists, now)), name)
	}
	require.Empty(t, relationship.MergeWebRoots([][]byte{old, nil}, now))
	var many [][]byte
	for range 17 {
		many = append(many, federationtest.NewAuthority(t, "us.example.org").PEM())
	}
	accepted, _, err := relationship.ParseWebRoots(relationship.MergeWebRoots(many, now), now)
	require.NoError(t, err, "the other side accepts what is merged")
	require.Equal(t, 16, bytes.Count(accepted, []byte("BEGIN CERTIFICATE")))
}

// TestOfferedWebRoots: the roots of an offer are those of the relationships, and nothing else is accepted with them.
func TestOfferedWebRoots(t *testing.T) {
	us, shop := federationtest.NewAuthority(t, "us.example.org"), federationtest.NewAuthority(t, "shop.example.org")
	web := federationtest.NewAuthority(t, "web.example.org").PEM()
	offer := &ententev1.FederationOffer{
		TrustDomain: "shop.example.org", HomeTrustDomain: "us.example.org",
		Bundle: shop.Bundle(t, 1).Marshal(), HomeBundle: us.Bundle(t, 1).Marshal(),
		Urls:     []string{"https://us-1.example.org/bundles/shop.example.org"},
		HomeUrls: []string{"https://us-1.example.org/bundles/us.example.org"},
		Profile:  ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB, WebRoots: append([]byte("# us\n"), web...),
		Identities: [][]byte{make([]byte, 32)},
	}
	agreement := &statev1.RelationshipAgreement{Id: "a", Advertised: []string{"lb.example.org:7440"}}
	all, err := relationshipsOf(offer, agreement, false, time.Now())
	require.NoError(t, err)
	require.Len(t, all, 2, "the domain, and the home domain of its cluster")
	for _, r := range all {
		require.Equal(t, web, r.row.GetWebRoots())
		require.Equal(t, endpoint.RootsDigest(web), r.row.GetAgreement().GetWebRootsSha256())
		require.Equal(t, []string{"lb.example.org:7440"}, r.row.GetAgreement().GetAdvertised())
	}

	offer.WebRoots = bytes.Repeat(web, 17)
	_, err = relationshipsOf(offer, agreement, false, time.Now())
	require.EqualError(t, err, "it has 17 web roots; 16 are the most")
	offer.WebRoots, offer.Profile = web, ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE
	offer.EndpointSpiffeId = "spiffe://us.example.org/entente/bundle-endpoint"
	_, err = relationshipsOf(offer, agreement, false, time.Now())
	require.EqualError(t, err, "web_roots belong to profile https_web; leave them out for https_spiffe, where the "+
		"endpoint proves itself by an X509-SVID")
}
