package client_test

import (
	"context"
	"crypto/sha256"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// Every call that makes something can be repeated, is made once, and returns no secret a second time.
func TestRepeatedCalls(t *testing.T) {
	c := administrator(t.Context())
	defer c.Close()
	ctx := t.Context()
	_, err := c.Federation().CreateRelationship(ctx, &ententev1.CreateRelationshipRequest{
		Relationship: webRelationship("repeated-peer.example.org", true),
	})
	require.NoError(t, err)
	defer func() {
		_, err := c.Federation().DeleteRelationship(context.WithoutCancel(ctx),
			&ententev1.DeleteRelationshipRequest{TrustDomain: "repeated-peer.example.org"})
		require.NoError(t, err)
	}()
	instance := &ententev1.Instance{
		Service: "repeated", Address: "10.77.0.1:443", SpiffeId: "spiffe://dev.example.org/repeated",
		Locality: &ententev1.Locality{Region: "r", Zone: "z"},
	}
	grant := &ententev1.Grant{Role: ententev1.Role_ROLE_READER, SpiffeId: "spiffe://dev.example.org/repeated"}
	for name, one := range map[string]struct {
		// call makes something with an id. other changes the request if it is set.
		call func(id, other string) (proto.Message, error)
		// gone deletes what was made.
		gone func() error
	}{
		"CreateDomain": {
			func(id, other string) (proto.Message, error) {
				return c.Domains().CreateDomain(ctx, &ententev1.CreateDomainRequest{
					RequestId: id, Domain: &ententev1.Domain{TrustDomain: other + "repeated.example.org"},
				})
			},
			func() error {
				_, err := c.Domains().DeleteDomain(ctx,
					&ententev1.DeleteDomainRequest{TrustDomain: "repeated.example.org"})
				return err
			},
		},
		"CreateRelationship": {
			func(id, other string) (proto.Message, error) {
				return c.Federation().CreateRelationship(ctx, &ententev1.CreateRelationshipRequest{
					RequestId: id, Relationship: webRelationship(other+"repeated.example.com", false),
				})
			},
			func() error {
				_, err := c.Federation().DeleteRelationship(ctx,
					&ententev1.DeleteRelationshipRequest{TrustDomain: "repeated.example.com"})
				return err
			},
		},
		"CreateInvitation": {
			func(id, other string) (proto.Message, error) {
				return c.Federation().CreateInvitation(ctx, &ententev1.CreateInvitationRequest{
					RequestId: id, TrustDomain: "dev.example.org", ForeignTrustDomain: other + "repeated.example.net",
				})
			}, nil,
		},
		"CreateJoinToken": {
			func(id, other string) (proto.Message, error) {
				return c.Cluster().CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{
					RequestId: id, MemberId: other + "dev-9",
				})
			},
			func() error {
				_, err := c.Cluster().RevokeJoinToken(ctx, &ententev1.RevokeJoinTokenRequest{MemberId: "dev-9"})
				return err
			},
		},
		"GrantRole": {
			func(id, other string) (proto.Message, error) {
				g := proto.CloneOf(grant)
				g.SpiffeId += other
				return c.Access().GrantRole(ctx, &ententev1.GrantRoleRequest{RequestId: id, Grant: g})
			},
			func() error {
				_, err := c.Access().RevokeRole(ctx, &ententev1.RevokeRoleRequest{
					Role: grant.GetRole(), SpiffeId: grant.GetSpiffeId(),
				})
				return err
			},
		},
		"PutRules": {
			func(id, other string) (proto.Message, error) {
				percent := uint32(70)
				return c.Routing().PutRules(ctx, &ententev1.PutRulesRequest{
					RequestId: id,
					Rules:     []*ententev1.RoutingRule{{Service: other + "repeated", PanicThreshold: &percent}},
				})
			},
			func() error {
				_, err := c.Routing().DeleteRule(ctx, &ententev1.DeleteRuleRequest{Service: "repeated"})
				return err
			},
		},
		"RegisterInstance": {
			func(id, other string) (proto.Message, error) {
				i := proto.CloneOf(instance)
				i.Service += other
				return c.Routing().RegisterInstance(ctx,
					&ententev1.RegisterInstanceRequest{RequestId: id, Instance: i})
			},
			func() error {
				_, err := c.Routing().DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{
					Service: "repeated", Address: instance.GetAddress(),
				})
				return err
			},
		},
		"ExportService": {
			func(id, other string) (proto.Message, error) {
				return c.Routing().ExportService(ctx, &ententev1.ExportServiceRequest{
					RequestId: id, Export: &ententev1.ServiceExport{
						Service: "repeated", Name: other + "repeated", To: "repeated-peer.example.org",
					},
				})
			},
			func() error {
				_, err := c.Routing().UnexportService(ctx, &ententev1.UnexportServiceRequest{
					Name: "repeated", To: "repeated-peer.example.org",
				})
				return err
			},
		},
		"ImportService": {
			func(id, other string) (proto.Message, error) {
				return c.Routing().ImportService(ctx, &ententev1.ImportServiceRequest{
					RequestId: id, Import: &ententev1.ServiceImport{
						Service: "repeated", Name: other + "repeated", From: "repeated-peer.example.org",
					},
				})
			},
			func() error {
				_, err := c.Routing().UnimportService(ctx, &ententev1.UnimportServiceRequest{
					Service: "repeated", From: "repeated-peer.example.org",
				})
				return err
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			id := client.NewRequestID()
			first, err := one.call(id, "")
			require.NoError(t, err)
			again, err := one.call(id, "")
			require.NoError(t, err)
			token := first.ProtoReflect().Descriptor().Fields().ByName("token")
			if token != nil {
				require.NotEmpty(t, first.ProtoReflect().Get(token).String())
				first.ProtoReflect().Clear(token) // a secret is not returned again
			}
			for _, m := range []proto.Message{first, again} { // what changes by itself
				for _, volatile := range []protoreflect.Name{"revision", "warnings"} {
					if f := m.ProtoReflect().Descriptor().Fields().ByName(volatile); f != nil {
						m.ProtoReflect().Clear(f)
					}
				}
			}
			if put, ok := first.(*ententev1.PutRulesResponse); ok {
				put.Rules[0].Revision = again.(*ententev1.PutRulesResponse).GetRules()[0].GetRevision()
			}
			require.Equal(t, first.ProtoReflect().Descriptor().FullName(),
				again.ProtoReflect().Descriptor().FullName())
			require.Equal(t, text(first), text(again))

			_, err = one.call(id, "x")
			require.ErrorIs(t, err, client.ErrRequestReused)
			require.ErrorIs(t, err, client.ErrInvalidArgument)
			var refused *client.Error
			require.ErrorAs(t, err, &refused)
			require.Equal(t, "request_id", refused.Field())
			_, err = one.call("nonsense", "")
			require.ErrorAs(t, err, &refused)
			require.Equal(t, "request_id", refused.Field())

			if one.gone == nil {
				return
			}
			require.NoError(t, one.gone())
			_, err = one.call(id, "")
			require.ErrorIs(t, err, client.ErrFailedPrecondition, "a repeated call made it again")
			require.ErrorContains(t, err, "gone since")
			_, err = one.call(client.NewRequestID(), "")
			require.NoError(t, err, "a new call makes it again")
			require.NoError(t, one.gone())
		})
	}
}

// text is a message without what a loop of the server may have moved meanwhile.
func text(m proto.Message) string {
	if r, ok := m.(*ententev1.Relationship); ok {
		return r.GetTrustDomain() + r.GetEtag() + r.GetCreateTime().String()
	}
	return prototext.Format(m)
}

func webRelationship(domain string, peer bool) *ententev1.Relationship {
	r := &ententev1.Relationship{
		TrustDomain: domain, Url: "https://127.0.0.1:1/", Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB,
	}
	if peer {
		r.Peer = &ententev1.Peer{HomeTrustDomain: domain}
	}
	return r
}

// Every request that makes something has an id.
func TestEveryCreationHasARequestID(t *testing.T) {
	for _, file := range []protoreflect.FileDescriptor{
		ententev1.File_entente_v1_access_proto, ententev1.File_entente_v1_cluster_proto,
		ententev1.File_entente_v1_domain_proto, ententev1.File_entente_v1_federation_proto,
		ententev1.File_entente_v1_routing_proto,
	} {
		for s := range file.Services().Len() {
			methods := file.Services().Get(s).Methods()
			for i := range methods.Len() {
				m := methods.Get(i)
				for _, verb := range []string{"Create", "Grant", "Put", "Register", "ExportS", "ImportS"} {
					if strings.HasPrefix(string(m.Name()), verb) {
						require.NotNil(t, m.Input().Fields().ByName("request_id"), m.FullName())
					}
				}
			}
		}
	}
}

// lossy is a member that makes what a request has and loses its first answer.
type lossy struct {
	ententev1.UnimplementedDomainServiceServer
	mu    sync.Mutex
	calls []string
}

func (l *lossy) CreateDomain(_ context.Context, r *ententev1.CreateDomainRequest) (*ententev1.Domain, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, r.GetRequestId())
	switch len(l.calls) {
	case 1:
		return nil, status.Error(codes.Unavailable, "error reading from server: EOF") // as gRPC has it
	case 2: // by a member that has not applied the caller's grant yet
		return nil, status.Error(codes.PermissionDenied, "no grant")
	}
	return r.GetDomain(), nil
}

func (l *lossy) UpdateDomain(context.Context, *ententev1.UpdateDomainRequest) (*ententev1.Domain, error) {
	return nil, status.Error(codes.Unavailable, "error reading from server: EOF")
}

// A client repeats a call whose answer was lost, with the same id.
func TestLostAnswer(t *testing.T) {
	path := t.TempDir() + "/admin.sock"
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	server, member := grpc.NewServer(), &lossy{}
	ententev1.RegisterDomainServiceServer(server, member)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		server.Stop()
		require.NoError(t, <-served)
	}()
	c, err := client.New(t.Context(), client.WithAdminSocket(path))
	require.NoError(t, err)
	defer c.Close()
	request := &ententev1.CreateDomainRequest{Domain: &ententev1.Domain{TrustDomain: "pay.test"}}
	made, err := c.Domains().CreateDomain(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, "pay.test", made.GetTrustDomain())
	require.Len(t, member.calls, 3)
	require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, member.calls[0])
	require.Equal(t, member.calls[0], member.calls[1])
	require.Empty(t, request.GetRequestId(), "the request belongs to the caller")

	_, err = c.Domains().UpdateDomain(t.Context(), &ententev1.UpdateDomainRequest{})
	require.ErrorIs(t, err, client.ErrUnknownOutcome, "what has no id is the caller's to repeat")
}

// The client makes the secret of a token by itself, which no member ever has.
func TestOwnSecrets(t *testing.T) {
	c := administrator(t.Context())
	defer c.Close()
	request := &ententev1.CreateInvitationRequest{
		TrustDomain: "dev.example.org", ForeignTrustDomain: "own.example.org",
	}
	made, err := c.Federation().CreateInvitation(t.Context(), request)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(made.GetToken(), "entente-federate-1-"))
	require.Empty(t, request.GetSecretSha256(), "the request belongs to the caller")
	join, err := c.Cluster().CreateJoinToken(t.Context(), &ententev1.CreateJoinTokenRequest{MemberId: "dev-7"})
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(join.GetToken(), "entente-join-1-"))
}

// A token whose secret the caller chose is joined from its public part, and admits as any other.
func TestChosenSecrets(t *testing.T) {
	c := administrator(t.Context())
	defer c.Close()
	secret := []byte("0123456789abcdef0123456789abcdef")
	digest := sha256.Sum256(secret)
	invited, err := c.Federation().CreateInvitation(t.Context(), &ententev1.CreateInvitationRequest{
		TrustDomain: "dev.example.org", ForeignTrustDomain: "chosen.example.org", SecretSha256: digest[:],
	})
	require.NoError(t, err)
	require.Empty(t, invited.GetToken())
	token, err := client.JoinToken(invited.GetInvitation().GetPublicPart(), secret)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(token, "entente-federate-1-"))

	join, err := c.Cluster().CreateJoinToken(t.Context(), &ententev1.CreateJoinTokenRequest{
		MemberId: "dev-8", SecretSha256: digest[:],
	})
	require.NoError(t, err)
	require.Empty(t, join.GetToken())
	require.Equal(t, "dev-8", join.GetJoinToken().GetMemberId())
	token, err = client.JoinToken(join.GetJoinToken().GetPublicPart(), secret)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(token, "entente-join-1-"))

	for _, test := range []struct {
		public string
		secret []byte
		want   string
	}{
		{join.GetJoinToken().GetPublicPart(), secret[1:], "the secret has 31 bytes, and that of a token has 32"},
		{join.GetJoinToken().GetPublicPart()[:40], secret, "read the public part: "},
		{token, secret, "read the public part: it begins with none of "},
		{"", secret, "read the public part: it begins with none of "},
	} {
		_, err := client.JoinToken(test.public, test.secret)
		require.ErrorContains(t, err, test.want)
		require.NotContains(t, err.Error(), string(test.secret))
	}
	_, err = c.Federation().CreateInvitation(t.Context(), &ententev1.CreateInvitationRequest{
		TrustDomain: "dev.example.org", ForeignTrustDomain: "chosen.example.org", SecretSha256: secret[:31],
	})
	require.ErrorIs(t, err, client.ErrInvalidArgument)
	var refused *client.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "secret_sha256", refused.Field())
}
