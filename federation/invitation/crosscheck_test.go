package invitation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// inviting is a member of another cluster with a response that the test defines.
type inviting struct {
	ententev1.UnimplementedInvitationServiceServer
	identity [32]byte
	answer   func() (*ententev1.AcceptInvitationResponse, error)
	pipe     *bufconn.Listener
}

func (i *inviting) AcceptInvitation(
	context.Context,
	*ententev1.AcceptInvitationRequest,
) (*ententev1.AcceptInvitationResponse, error) {
	return i.answer()
}

// invitingCluster serves members by address. A member without a response is not reachable.
func invitingCluster(
	t *testing.T,
	members map[string]*inviting,
) dialer {
	t.Helper()
	for _, m := range members {
		if m.answer == nil {
			continue
		}
		m.pipe = bufconn.Listen(64 << 10)
		server := grpc.NewServer()
		ententev1.RegisterInvitationServiceServer(server, m)
		go func() { _ = server.Serve(m.pipe) }()
		t.Cleanup(server.Stop)
	}
	return func(ctx context.Context, address string, accept func([32]byte) error) (net.Conn, []byte, error) {
		m := members[address]
		if m.pipe == nil {
			return nil, nil, errors.New("connection refused")
		}
		if err := accept(m.identity); err != nil {
			return nil, nil, err
		}
		conn, err := m.pipe.DialContext(ctx)
		return conn, someBinding, err
	}
}

// dialer is the Dial of a [Transport].
type dialer = func(context.Context, string, func([32]byte) error) (net.Conn, []byte, error)

// balanced returns a dialer that leads to members in turn, twice to each, whatever the address. It is not safe for
// concurrent use.
func balanced(dial dialer, members ...string) dialer {
	calls := 0
	return func(ctx context.Context, _ string, accept func([32]byte) error) (net.Conn, []byte, error) {
		member := members[calls/2%len(members)]
		calls++
		return dial(ctx, member, accept)
	}
}

// TestCrossCheck tests that the holder of one member's key cannot answer for its cluster alone.
func TestCrossCheck(t *testing.T) {
	us, forged := federationtest.NewAuthority(t, "us.example.org"), federationtest.NewAuthority(t, "us.example.org")
	first, second := [32]byte{1}, [32]byte{2}
	honest := &ententev1.AcceptInvitationResponse{Offer: &ententev1.FederationOffer{
		TrustDomain: "us.example.org", HomeTrustDomain: "us.example.org", Bundle: us.Bundle(t, 1).Marshal(),
		Urls:    []string{"https://us.example.org/"},
		Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB, PeerAddresses: []string{"us-1.example.org:7440"},
		Identities: [][]byte{first[:], second[:]},
	}}
	type response = func() (*ententev1.AcceptInvitationResponse, error)
	respond := func(a *ententev1.AcceptInvitationResponse) response {
		return func() (*ententev1.AcceptInvitationResponse, error) { return a, nil }
	}
	changed := func(change func(*ententev1.AcceptInvitationResponse)) response {
		a := proto.Clone(honest).(*ententev1.AcceptInvitationResponse)
		change(a)
		return respond(a)
	}
	for name, c := range map[string]struct {
		second  response
		refused string
		warned  string
		// behind means that one address leads to both members, to another one every second time.
		behind bool
	}{
		"behind a load balancer": {second: respond(honest), behind: true},
		"another answer behind the same load": {second: changed(func(a *ententev1.AcceptInvitationResponse) {
			a.Offer.Bundle = forged.Bundle(t, 1).Marshal()
		}), refused: "disagree: its bundle", behind: true},
		"other web roots": {second: changed(func(a *ententev1.AcceptInvitationResponse) {
			a.Offer.WebRoots = forged.PEM()
		}), refused: "disagree: how its endpoint authenticates"},
		"the same": {second: changed(func(a *ententev1.AcceptInvitationResponse) {
			a.Offer.Identities[0], a.Offer.Identities[1] = a.Offer.Identities[1], a.Offer.Identities[0]
			a.Offer.PeerAddresses = []string{"us-2.example.org:7440"}
		})},
		"other keys": {second: changed(func(a *ententev1.AcceptInvitationResponse) {
			a.Offer.Bundle = forged.Bundle(t, 1).Marshal()
		}), refused: "disagree: its bundle"},
		"a higher sequence": {second: changed(func(a *ententev1.AcceptInvitationResponse) {
			a.Offer.Bundle = us.Bundle(t, 1<<63).Marshal()
		}), refused: "disagree: its bundle"},
		"another member": {second: changed(func(a *ententev1.AcceptInvitationResponse) {
			a.Offer.Identities[1] = make([]byte, 32)
		}), refused: "disagree: its members"},
		"approved": {second: changed(func(a *ententev1.AcceptInvitationResponse) {
			a.Approved = true
		}), refused: "disagree: whether the agreement is approved"},
		"another home": {second: changed(func(a *ententev1.AcceptInvitationResponse) {
			a.Offer.HomeTrustDomain = "ap.example.org"
		}), refused: "disagree: its trust domain or home trust domain"},
		"another profile": {second: changed(func(a *ententev1.AcceptInvitationResponse) {
			a.Offer.Profile = 1
		}), refused: "disagree: how its endpoint authenticates"},
		"another URL": {second: changed(func(a *ententev1.AcceptInvitationResponse) {
			a.Offer.Urls[0] = "https://evil.example.org/"
		}), warned: "name different URLs"},
		"revoked": {second: func() (*ententev1.AcceptInvitationResponse, error) {
			return nil, status.Error(codes.PermissionDenied, "the invitation was revoked")
		}, refused: "the invitation was revoked"},
		"overloaded": {second: func() (*ententev1.AcceptInvitationResponse, error) {
			return nil, status.Error(codes.ResourceExhausted, "busy")
		}, warned: "only one of the 2 members"},
		"unreachable": {warned: "only one of the 2 members"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			identity, err := memberid.LoadIdentity(filepath.Join(t.TempDir(), "identity.key"))
			require.NoError(t, err)
			eu := federationtest.NewAuthority(t, "eu.example.org")
			members := map[string]*inviting{
				"us-1.example.org:7440": {identity: first, answer: respond(honest)},
				"us-2.example.org:7440": {identity: second, answer: c.second},
			}
			addresses := []string{"us-1.example.org:7440", "us-2.example.org:7440"}
			dial := invitingCluster(t, members)
			if c.behind {
				addresses = []string{"lb.example.org:7440"}
				dial = balanced(dial, "us-1.example.org:7440", "us-2.example.org:7440")
			}
			r := newRoom(t, func(config *Config) {
				config.Home = eu.TrustDomain.Name()
				config.Transport = Transport{
					Identity: identity, Members: func() []Member {
						return []Member{{Address: "eu-1.example.org:7440", Identity: identity.Digest}}
					},
					Endpoints: func(string, []string) []string { return []string{"https://eu.example.org/"} },
					Profile:   ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB,
					Dial:      dial, Credentials: insecure.NewCredentials(),
				}
			})
			r.host(t, eu)
			text, err := Token{
				ID: token.NewID(), Secret: token.NewSecret(), TrustDomain: us.TrustDomain,
				Foreign:   spiffeid.RequireTrustDomainFromString("eu.example.org"),
				Addresses: addresses, Identities: [][32]byte{first, second},
				Expires: r.manager.config.Now().Add(federationtest.WaitLimit),
			}.Text()
			require.NoError(t, err)
			done, err := r.service.RedeemInvitation(t.Context(), &ententev1.RedeemInvitationRequest{Token: text})
			if c.refused != "" {
				require.ErrorContains(t, err, c.refused)
				_, found, err := relationship.Relationships.Get(r.store.View(), "us.example.org")
				require.NoError(t, err)
				require.False(t, found, "nothing is stored")
				return
			}
			require.NoError(t, err)
			require.Equal(t, ententev1.RelationshipState_RELATIONSHIP_STATE_PENDING, done.GetRelationship().GetState())
			if c.warned == "" {
				require.Empty(t, done.GetWarnings())
			} else {
				require.Contains(t, fmt.Sprint(done.GetWarnings()), c.warned)
			}
		})
	}
}
