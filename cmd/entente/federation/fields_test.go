package federation

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// TestFields sets each flag of a relationship, and expects the field and the path of the update mask.
func TestFields(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("content"), 0o600))
	x509 := []ententev1.AuthorityKind{ententev1.AuthorityKind_AUTHORITY_KIND_X509}
	tests := []struct {
		name  string
		args  []string
		want  *ententev1.Relationship
		paths []string
	}{
		{"URLs", []string{"--url", "https://a/", "--url", "https://b/"},
			&ententev1.Relationship{Url: "https://a/", FallbackUrls: []string{"https://b/"}},
			[]string{"url", "fallback_urls"}},
		{"profile", []string{"--profile", "https_web"},
			&ententev1.Relationship{Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB},
			[]string{"profile"}},
		{"SPIFFE ID", []string{"--endpoint-spiffe-id", "spiffe://a/b"},
			&ententev1.Relationship{EndpointSpiffeId: "spiffe://a/b"}, []string{"endpoint_spiffe_id"}},
		{"files", []string{"--web-roots", file, "--serving-bundle", file},
			&ententev1.Relationship{WebRoots: []byte("content"), ServingBundle: []byte("content")},
			[]string{"web_roots", "serving_bundle"}},
		{"no files", []string{"--web-roots", "", "--serving-bundle", ""}, &ententev1.Relationship{},
			[]string{"web_roots", "serving_bundle"}},
		{"limits", []string{"--max-stale-jwt", "1h", "--fetch-timeout", "2s", "--max-document-bytes", "2048"},
			&ententev1.Relationship{
				MaxStaleJwt: durationpb.New(time.Hour), FetchTimeout: durationpb.New(2 * time.Second),
				MaxDocumentBytes: 2048,
			}, []string{"max_stale_jwt", "max_document_bytes", "fetch_timeout"}},
		{"poll interval", []string{"--poll-interval", "20s"},
			&ententev1.Relationship{PollInterval: durationpb.New(20 * time.Second)}, []string{"poll_interval"}},
		{"the default of a duration", []string{"--max-stale-x509", "0"}, &ententev1.Relationship{},
			[]string{"max_stale_x509"}},
		{"one kind", []string{"--authority-kinds", "x509"}, &ententev1.Relationship{AuthorityKinds: x509},
			[]string{"authority_kinds"}},
		{"both kinds", []string{"--authority-kinds", "both"}, &ententev1.Relationship{}, []string{"authority_kinds"}},
		{"peer", []string{"--peer-domain", "a", "--peer-address", "b:1"},
			&ententev1.Relationship{Peer: &ententev1.Peer{HomeTrustDomain: "a", Addresses: []string{"b:1"}}},
			[]string{"peer"}},
		{"addresses of the peer", []string{"--peer-address", "b:1"},
			&ententev1.Relationship{Peer: &ententev1.Peer{Addresses: []string{"b:1"}}}, []string{"peer.addresses"}},
		{"no peer", []string{"--peer-domain", ""}, &ententev1.Relationship{}, []string{"peer"}},
		{"static", []string{"--static"}, &ententev1.Relationship{Static: true}, []string{"static"}},
		{"proxy", []string{"--egress-proxy", "none"}, &ententev1.Relationship{EgressProxy: "none"},
			[]string{"egress_proxy"}},
		{"attest", []string{"--attest=false"}, &ententev1.Relationship{}, []string{"attest"}},
		{"hub", []string{"--hub-include", ".a", "--hub-exclude", "", "--hub-url", "https://a/"},
			&ententev1.Relationship{Hub: &ententev1.Hub{Include: []string{".a"}, Url: "https://a/"}},
			[]string{"hub.include", "hub.exclude", "hub.url"}},
		{"no hub", []string{"--hub-include", "", "--hub-url", "https://a/"}, &ententev1.Relationship{},
			[]string{"hub"}},
	}
	used := map[string]bool{"bootstrap": true}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cmd, got := &cobra.Command{}, &ententev1.Relationship{}
			fields := addFields(&cli.Env{Stdin: &bytes.Buffer{}}, cmd)
			require.NoError(t, cmd.ParseFlags(test.args))
			paths, _, err := fields.apply(got)
			require.NoError(t, err)
			require.Equal(t, test.paths, paths)
			require.True(t, proto.Equal(test.want, got), "%v", got)
			for _, f := range fields.list {
				used[f.flag] = used[f.flag] || cmd.Flags().Changed(f.flag)
			}
		})
	}
	for flag, tested := range used {
		require.True(t, tested, "no case sets --%s", flag)
	}
}
