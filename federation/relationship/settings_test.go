package relationship

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
)

func TestParseSettings(t *testing.T) {
	hub := federationtest.NewAuthority(t, "hub.example.org")
	served := func(r *statev1.Relationship) { r.EndpointSpiffeId = "spiffe://hub.example.org/endpoint" }
	for _, test := range []struct {
		name   string
		change func(r *statev1.Relationship)
		want   string
	}{
		{"a row with one URL alone", func(*statev1.Relationship) {}, ""},
		{"two endpoints", func(r *statev1.Relationship) { r.FallbackUrls = []string{"https://b.example.org/"} }, ""},
		{"one endpoint twice", func(r *statev1.Relationship) { r.FallbackUrls = []string{r.Url} },
			`fallback_urls has "https://a.example.org/" twice, url included; name each endpoint once`},
		{"a fallback over http", func(r *statev1.Relationship) { r.FallbackUrls = []string{"http://b.example.org/"} },
			"fallback_urls is refused: the URL is not a valid bundle endpoint URL: \"http://b.example.org/\" has " +
				"scheme \"http\"; https is needed; write https://HOST[:PORT][/PATH]"},
		{"an empty fallback", func(r *statev1.Relationship) { r.FallbackUrls = []string{""} },
			"fallback_urls is missing; name the peer's bundle endpoint, such as https://bundle.us.example.org:7443/"},
		{"too many endpoints", func(r *statev1.Relationship) { r.FallbackUrls = []string{"b", "c", "d", "e"} },
			"there are 5 endpoints; 4 are the most, url included"},
		{"both kinds", func(r *statev1.Relationship) { r.AuthorityKinds = []int32{2, 1} }, ""},
		{"an unknown kind", func(r *statev1.Relationship) { r.AuthorityKinds = []int32{7} },
			"authority_kinds has 7, which is no kind; name x509, jwt, or leave it out for both"},
		{"a kind twice", func(r *statev1.Relationship) { r.AuthorityKinds = []int32{1, 1} },
			"authority_kinds names a kind twice; name x509, jwt, or leave it out for both"},
		{"a document of 1 byte", func(r *statev1.Relationship) { r.MaxDocumentBytes = 1 },
			"max_document_bytes is 1; it must lie between 1024 and 1048576, or be 0 for the most"},
		{"a document of a gigabyte", func(r *statev1.Relationship) { r.MaxDocumentBytes = 1 << 30 },
			"max_document_bytes is 1073741824; it must lie between 1024 and 1048576, or be 0 for the most"},
		{"an hour for a fetch", func(r *statev1.Relationship) { r.FetchTimeout = durationpb.New(time.Hour) },
			"fetch_timeout must lie between 500ms and 30s; leave it out for the longest"},
		{"a poll all the time", func(r *statev1.Relationship) { r.PollInterval = durationpb.New(time.Millisecond) },
			"poll_interval must lie between 1s and 24h0m0s; leave it out to follow the refresh hint"},
		{"a poll every year", func(r *statev1.Relationship) { r.PollInterval = durationpb.New(8760 * time.Hour) },
			"poll_interval must lie between 1s and 24h0m0s; leave it out to follow the refresh hint"},
		{"no time for a fetch", func(r *statev1.Relationship) { r.FetchTimeout = durationpb.New(0) },
			"fetch_timeout must lie between 500ms and 30s; leave it out for the longest"},
		{"a serving bundle where the domain serves itself",
			func(r *statev1.Relationship) { r.ServingBundle = hub.Bundle(t, 1).Marshal() },
			"serving_bundle belongs to profile https_spiffe with an endpoint_spiffe_id in another domain than the " +
				"relationship's; leave it out"},
		{
			"a serving bundle",
			func(r *statev1.Relationship) { served(r); r.ServingBundle = hub.Bundle(t, 1).Marshal() }, "",
		},
		{"a serving bundle without an X.509 authority",
			func(r *statev1.Relationship) { served(r); r.ServingBundle = []byte(`{"keys":[]}`) },
			"serving_bundle of hub.example.org holds no X.509 authority, so no endpoint can be verified by it"},
		{"a serving bundle that is none",
			func(r *statev1.Relationship) { served(r); r.ServingBundle = []byte(`<html>`) },
			"serving_bundle of hub.example.org is refused:"},
		{"a serving bundle beyond bounds",
			func(r *statev1.Relationship) { served(r); r.ServingBundle = make([]byte, 1<<17) },
			"serving_bundle has 131072 bytes; 65536 are the most"},
	} {
		t.Run(test.name, func(t *testing.T) {
			row := &statev1.Relationship{
				TrustDomain: "us.example.org", Url: "https://a.example.org/", Profile: int32(
					ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
				),
				EndpointSpiffeId: "spiffe://us.example.org/endpoint",
			}
			test.change(row)
			_, err := Parse(row)
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.want)
		})
	}
}
