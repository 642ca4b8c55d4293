package relationship

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/trust/standing"
)

const (
	spiffeProfile = int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE)
	webProfile    = int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB)
)

func TestParseRelationshipRefusals(t *testing.T) {
	good := &statev1.Relationship{
		TrustDomain: "us.example.org", Url: "https://us.example.org:7443/", Profile: spiffeProfile,
		EndpointSpiffeId: "spiffe://us.example.org/entente/bundle-endpoint",
	}
	web := &statev1.Relationship{
		TrustDomain: "us.example.org",
		Url:         "https://us.example.org/bundle?x=1",
		Profile:     webProfile,
	}
	static := &statev1.Relationship{TrustDomain: "us.example.org", Static: true}
	file := &statev1.Relationship{TrustDomain: "us.example.org", Url: "file:///partners/us.json"}
	for _, row := range []*statev1.Relationship{good, web, static, file} {
		_, err := Parse(row)
		require.NoError(t, err)
	}
	of := func(from *statev1.Relationship, change func(*statev1.Relationship)) *statev1.Relationship {
		row := proto.Clone(from).(*statev1.Relationship)
		change(row)
		return row
	}
	for _, test := range []struct {
		name string
		row  *statev1.Relationship
		want string
	}{
		{"no trust domain", of(good, func(r *statev1.Relationship) { r.TrustDomain = "" }),
			`trust_domain is missing; name the foreign trust domain, such as us.example.org`},
		{"a SPIFFE ID for a trust domain",
			of(good, func(r *statev1.Relationship) { r.TrustDomain = "spiffe://us.example.org" }),
			`trust_domain "spiffe://us.example.org" is not the name of a trust domain; write at most 255 ` +
				`lower-case letters, digits, dots, dashes and underscores, without scheme or path`},
		{"upper case", of(good, func(r *statev1.Relationship) { r.TrustDomain = "US.example.org" }),
			`trust_domain "US.example.org" is not the name of a trust domain; write at most 255 lower-case ` +
				`letters, digits, dots, dashes and underscores, without scheme or path`},
		{"no URL", of(good, func(r *statev1.Relationship) { r.Url = "" }),
			`url is missing; name the peer's bundle endpoint, such as https://bundle.us.example.org:7443/`},
		{"http", of(good, func(r *statev1.Relationship) { r.Url = "http://us.example.org/" }),
			`url is refused: the URL is not a valid bundle endpoint URL: "http://us.example.org/" has scheme ` +
				`"http"; https is needed; write https://HOST[:PORT][/PATH]`},
		{"user information", of(good, func(r *statev1.Relationship) { r.Url = "https://me:secret@us.example.org/" }),
			`url is refused: the URL is not a valid bundle endpoint URL: it has user information; an endpoint is ` +
				`read by everybody; write https://HOST[:PORT][/PATH]`},
		{"no profile", of(good, func(r *statev1.Relationship) { r.Profile = 0 }),
			`profile is missing; say https_spiffe or https_web, as the peer serves it: it is never guessed`},
		{"a profile from the future", of(good, func(r *statev1.Relationship) { r.Profile = 9 }),
			`profile is missing; say https_spiffe or https_web, as the peer serves it: it is never guessed`},
		{"https_spiffe without an ID", of(good, func(r *statev1.Relationship) { r.EndpointSpiffeId = "" }),
			`endpoint_spiffe_id is missing; profile https_spiffe needs the SPIFFE ID that the endpoint presents, ` +
				`such as spiffe://us.example.org/entente/bundle-endpoint`},
		{"not a SPIFFE ID", of(good, func(r *statev1.Relationship) { r.EndpointSpiffeId = "https://us.example.org/x" }),
			`endpoint_spiffe_id "https://us.example.org/x" is not a SPIFFE ID; write spiffe://TRUST_DOMAIN/PATH`},
		{"an ID without a path",
			of(good, func(r *statev1.Relationship) { r.EndpointSpiffeId = "spiffe://us.example.org" }),
			`endpoint_spiffe_id "spiffe://us.example.org" has no path; an endpoint presents a leaf X509-SVID, ` +
				`whose ID has one`},
		{"https_spiffe with web roots", of(good, func(r *statev1.Relationship) { r.WebRoots = []byte("x") }),
			`web_roots belong to profile https_web; leave them out for https_spiffe, where the endpoint proves ` +
				`itself by an X509-SVID`},
		{"https_web with an ID", of(web, func(r *statev1.Relationship) { r.EndpointSpiffeId = good.EndpointSpiffeId }),
			`endpoint_spiffe_id belongs to profile https_spiffe; leave it out for https_web, where the endpoint ` +
				`proves its host name`},
		{"web roots that are none", of(web, func(r *statev1.Relationship) { r.WebRoots = []byte("none") }),
			`web_roots are refused: bundle endpoint of us.example.org: the endpoint is not fully described: web ` +
				`roots: after 0 certificates there is something that is not PEM; give PEM certificates and ` +
				`nothing else`},
		{"huge web roots", of(web, func(r *statev1.Relationship) { r.WebRoots = make([]byte, 256<<10+1) }),
			`web_roots have 262145 bytes; 262144 are the most`},
		{"static with a URL", of(static, func(r *statev1.Relationship) { r.Url = "https://us.example.org/" }),
			`url does not go with a static relationship; leave it out`},
		{"static with a profile", of(static, func(r *statev1.Relationship) { r.Profile = webProfile }),
			`profile does not go with a static relationship; leave it out`},
		{"static with an interval",
			of(static, func(r *statev1.Relationship) { r.PollInterval = durationpb.New(time.Minute) }),
			`poll_interval does not go with a static relationship; leave it out`},
		{"static with a peer", of(static, func(r *statev1.Relationship) { r.Peer = &statev1.RelationshipPeer{} }),
			`peer does not go with a static relationship; leave it out`},
		{"static by an agreement",
			of(static, func(r *statev1.Relationship) { r.Agreement = &statev1.RelationshipAgreement{} }),
			`the relationship was made by an agreement, by which both sides announce their endpoints; delete it ` +
				`before you create a static relationship`},
		{"a file with a profile", of(file, func(r *statev1.Relationship) { r.Profile = webProfile }),
			`profile does not go with a relationship from a file; leave it out`},
		{"a file with another", of(file, func(r *statev1.Relationship) { r.FallbackUrls = []string{"file:///b"} }),
			`fallback_urls does not go with a relationship from a file; leave it out`},
		{"a file outside of the folder",
			of(file, func(r *statev1.Relationship) { r.Url = "file:///../../etc/shadow" }),
			`url "file:///../../etc/shadow" names a file outside of the folder; write file:///NAME, for a file below ` +
				`the members' federation.bundle_dir`},
		{"a file outside of the folder, encoded",
			of(file, func(r *statev1.Relationship) { r.Url = "file:///a/%2e%2e/%2e%2e/etc/shadow" }),
			`url "file:///a/%2e%2e/%2e%2e/etc/shadow" names a file outside of the folder; write file:///NAME, for a ` +
				`file below the members' federation.bundle_dir`},
		{"an absolute file", of(file, func(r *statev1.Relationship) { r.Url = "file:////etc/shadow" }),
			`url "file:////etc/shadow" names a file outside of the folder; write file:///NAME, for a file below the ` +
				`members' federation.bundle_dir`},
		{"a file of another machine", of(file, func(r *statev1.Relationship) { r.Url = "file://nas/us.json" }),
			`url "file://nas/us.json" is not the name of a file; write file:///NAME, for a file below the members' ` +
				`federation.bundle_dir`},
		{"no file", of(file, func(r *statev1.Relationship) { r.Url = "file:///" }),
			`url "file:///" names a file outside of the folder; write file:///NAME, for a file below the members' ` +
				`federation.bundle_dir`},
		{"max_stale of zero", of(good, func(r *statev1.Relationship) { r.MaxStaleJwt = durationpb.New(0) }),
			`max_stale_jwt must be more than 0 and at most 3650 days; leave it out for the default`},
		{"negative max_stale", of(good, func(r *statev1.Relationship) { r.MaxStaleX509 = durationpb.New(-time.Hour) }),
			`max_stale_x509 must be more than 0 and at most 3650 days; leave it out for the default`},
		{"a duration that is none",
			of(good, func(r *statev1.Relationship) { r.MaxStaleX509 = &durationpb.Duration{Seconds: 1, Nanos: -1} }),
			`max_stale_x509 must be more than 0 and at most 3650 days; leave it out for the default`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse(test.row)
			require.EqualError(t, err, test.want)
		})
	}
}

func TestParseRelationshipDefaults(t *testing.T) {
	r, err := Parse(
		&statev1.Relationship{TrustDomain: "us.example.org", Url: "https://us.example.org", Profile: webProfile},
	)
	require.NoError(t, err)
	require.Equal(t, DefaultMaxStaleJWT, r.MaxStaleJWT)
	require.Zero(t, r.MaxStaleX509, "X.509 authorities never count as expired for want of refresh unless configured")
	require.Equal(t, Validity{standing.Pending, true, true, false}, r.Validity)
}

func TestQuoteIsBounded(t *testing.T) {
	require.Equal(t, `"a\n\u202eb"`, Quote("a\n\u202eb"))
	require.LessOrEqual(t, len(Quote(strings.Repeat("x", 5000))), 110)
}

// FuzzParseRelationship: whatever an operator or a damaged row holds, the outcome is a valid relationship or one
// printable line.
func FuzzParseRelationship(f *testing.F) {
	f.Add(
		"us.example.org",
		"https://us.example.org/",
		spiffeProfile,
		"spiffe://us.example.org/e",
		[]byte(nil),
		int64(5),
	)
	f.Add(
		"us.example.org",
		"https://[::1]:7443/x?y=z",
		webProfile,
		"",
		[]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"),
		int64(0),
	)
	f.Add("us.example.org", "file:///us.json", int32(0), "", []byte(nil), int64(5))
	f.Add("us.example.org", "file:///../us.json", int32(0), "", []byte(nil), int64(5))
	f.Add("", "http://a:b@c:99999#f", int32(7), "spiffe://", []byte{0xff}, int64(-1))
	f.Fuzz(func(t *testing.T, td, url string, profile int32, id string, roots []byte, stale int64) {
		r, err := Parse(&statev1.Relationship{
			TrustDomain: td, Url: url, Profile: profile, EndpointSpiffeId: id, WebRoots: roots,
			MaxStaleJwt: &durationpb.Duration{Seconds: stale},
		})
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			require.Less(t, len(err.Error()), 4096)
			return
		}
		require.Equal(t, td, r.TrustDomain.Name())
		if r.File != "" {
			require.True(t, filepath.IsLocal(r.File))
			require.Empty(t, r.Endpoints)
			return
		}
		require.Equal(t, r.TrustDomain, r.Endpoint.TrustDomain())
		require.True(t, strings.HasPrefix(r.Endpoint.URL(), "https://"))
		require.Positive(t, r.MaxStaleJWT)
		require.Equal(t, id != "", r.Endpoint.ID().String() == id && id != "")
	})
}
