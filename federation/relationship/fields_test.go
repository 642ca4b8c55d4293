package relationship

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// complete returns a relationship with a value in each field that an operator can change.
func complete() *ententev1.Relationship {
	return &ententev1.Relationship{
		Url: "https://a/", FallbackUrls: []string{"https://b/"}, EndpointSpiffeId: "spiffe://a/b",
		Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB, WebRoots: []byte("roots"),
		ServingBundle: []byte("bundle"), MaxDocumentBytes: 2048, FetchTimeout: durationpb.New(time.Second),
		PollInterval: durationpb.New(time.Minute),
		Static:       true, EgressProxy: "http://proxy:3128",
		AuthorityKinds: []ententev1.AuthorityKind{ententev1.AuthorityKind_AUTHORITY_KIND_JWT},
		MaxStaleJwt:    durationpb.New(time.Hour), MaxStaleX509: durationpb.New(time.Minute), Attest: true,
		Peer: &ententev1.Peer{HomeTrustDomain: "a", Addresses: []string{"a:1"}},
		Hub:  &ententev1.Hub{Include: []string{"a"}, Exclude: []string{"b"}, Url: "https://a/map"},
	}
}

// TestFieldsAreStoredAndShown: what the API marks as a setting reaches the row, and comes back the same.
func TestFieldsAreStoredAndShown(t *testing.T) {
	for _, path := range settings {
		m := complete().ProtoReflect()
		require.True(t, has(m, path), "complete has no %s", path)
	}
	row, err := FromRequest(complete())
	require.NoError(t, err)
	shown, want := Message(row), complete()
	want.State = ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE
	want.Etag = "1"
	require.True(t, proto.Equal(want, shown), "%v", shown)

	empty := Message(&statev1.Relationship{})
	require.Equal(t, DefaultMaxStaleJWT, empty.GetMaxStaleJwt().AsDuration())
}

// TestApply changes each setting alone: from everything to nothing, and from nothing to everything.
func TestApply(t *testing.T) {
	for _, path := range settings {
		row, err := FromRequest(complete())
		require.NoError(t, err)
		Apply(row, []string{path}, &ententev1.Relationship{})
		require.False(t, has(row.ProtoReflect(), path), path)

		row = &statev1.Relationship{}
		Apply(row, []string{path}, complete())
		require.True(t, has(row.ProtoReflect(), path), path)
	}

	row := &statev1.Relationship{}
	Apply(row, []string{"peer.addresses", "hub.url"}, &ententev1.Relationship{})
	require.True(t, proto.Equal(&statev1.Relationship{}, row), "parts of what neither side has: %v", row)

	row = &statev1.Relationship{
		Hub: &statev1.RelationshipHub{Include: []string{"a"}}, HubValidity: &statev1.RelationshipValidity{},
	}
	Apply(row, []string{"hub"}, &ententev1.Relationship{})
	require.True(t, proto.Equal(&statev1.Relationship{}, row), "the validity of a map ends with the hub: %v", row)
}

func has(m protoreflect.Message, path string) bool {
	for name := range strings.SplitSeq(path, ".") {
		f := fieldOf(m, protoreflect.Name(name))
		if !m.Has(f) {
			return false
		}
		if f.Message() != nil && !f.IsList() {
			m = m.Get(f).Message()
		}
	}
	return true
}
