package registration_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/internal/origin"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/registration"
	"github.com/ententehq/entente/registration/agenttoken"
)

var home = spiffeid.RequireTrustDomainFromString("eu.example.org")

// signer signs nothing: the SVIDs of these tests are empty.
type signer struct {
	ententev1.UnimplementedSVIDServiceServer
	requests chan *ententev1.IssueX509SVIDRequest
}

func (s signer) IssueAgentX509(
	context.Context, spiffeid.ID, []byte, string,
) (*ententev1.IssueX509SVIDResponse, error) {
	return &ententev1.IssueX509SVIDResponse{AuthorityId: "a"}, nil
}

func (s signer) SVIDService() ententev1.SVIDServiceServer { return s }

func (s signer) IssueX509SVID(
	_ context.Context, m *ententev1.IssueX509SVIDRequest,
) (*ententev1.IssueX509SVIDResponse, error) {
	s.requests <- m
	return &ententev1.IssueX509SVIDResponse{AuthorityId: "a"}, nil
}

// services are those of a room, as a server registers them.
type services struct {
	agents  ententev1.AgentServiceServer
	entries ententev1.EntryServiceServer
	nodes   ententev1.NodeServiceServer
	attest  ententev1.AttestationServiceServer
	signed  chan *ententev1.IssueX509SVIDRequest
	store   *raftstore.Store
	room    *registration.Room
	guard   access.GuardConfig
}

// RegisterService implements grpc.ServiceRegistrar.
func (s *services) RegisterService(_ *grpc.ServiceDesc, service any) {
	switch service := service.(type) {
	case ententev1.AgentServiceServer:
		s.agents = service
	case ententev1.EntryServiceServer:
		s.entries = service
	case ententev1.NodeServiceServer:
		s.nodes = service
	}
}

const session = "a session"

// room runs a room on a store of one member.
func room(t *testing.T, adjust ...func(*registration.Config)) *services {
	t.Helper()
	s := &services{store: raftstoretest.New(t), signed: make(chan *ententev1.IssueX509SVIDRequest, 100)}
	s.guard = access.GuardConfig{
		Home: home, Hosted: func(_ raftstore.Reader, td spiffeid.TrustDomain) (bool, error) { return td == home, nil },
	}
	cfg := registration.Config{
		Store: s.store, Home: home, Signer: signer{requests: s.signed}, ParseCSR: svid.ParseCSR,
		Lifetimes: func(_ raftstore.Reader, td spiffeid.TrustDomain) (registration.Lifetimes, bool, error) {
			return registration.Lifetimes{X509: time.Hour, JWT: 5 * time.Minute}, td == home, nil
		},
		AuthorMay: s.guard.AuthorMay,
		Servers: func() []agenttoken.Server {
			return []agenttoken.Server{{Address: "10.0.0.1:7440", Identity: [32]byte{1}}}
		},
		Binding: func(context.Context) ([]byte, bool) { return []byte(session), true },
		Origin:  func(context.Context) origin.Origin { return origin.Origin{Host: "192.0.2.1"} },
	}
	for _, f := range adjust {
		f(&cfg)
	}
	r := registration.New(cfg)
	s.room = r
	r.RegisterServices(s)
	s.attest = r.AttestationService()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			require.ErrorIs(t, err, raftstore.ErrClosed)
		}
	})
	return s
}

func administrator(t *testing.T) context.Context {
	t.Helper()
	return access.WithCaller(t.Context(), access.SocketCaller(0, 1))
}

func (s *services) token(t *testing.T, agent string) agenttoken.Token {
	t.Helper()
	made, err := s.agents.CreateAgentToken(administrator(t), &ententev1.CreateAgentTokenRequest{Agent: agent})
	require.NoError(t, err)
	token, err := agenttoken.Parse(made.GetToken())
	require.NoError(t, err)
	return token
}

// node is an agent's key with what it sends.
type node struct {
	key *ecdsa.PrivateKey
	csr []byte
}

func newNode(t *testing.T) node {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	return node{key, csr}
}

// attest attests a node, with a token if there is one.
func (s *services) attestNode(t *testing.T, n node, token *agenttoken.Token) error {
	t.Helper()
	proof, err := agenttoken.Prove(n.key, []byte(session))
	require.NoError(t, err)
	m := &ententev1.AttestAgentRequest{Csr: n.csr, Proof: proof}
	if token != nil {
		m.Token = &ententev1.AgentTokenEvidence{Id: token.ID, Secret: token.Secret[:]}
	}
	_, err = s.attest.AttestAgent(t.Context(), m)
	return err
}

func TestAttestation(t *testing.T) {
	s := room(t)
	token := s.token(t, "node-1")
	n, other := newNode(t), newNode(t)
	refused := func(err error, code codes.Code, text string) {
		t.Helper()
		require.Equal(t, code, status.Code(err), err)
		require.ErrorContains(t, err, text)
	}
	refused(s.attestNode(t, n, nil), codes.PermissionDenied, "no agent has this key")
	wrong := token
	wrong.Secret[0]++
	refused(s.attestNode(t, n, &wrong), codes.PermissionDenied, "no such token for an agent")
	_, err := s.attest.AttestAgent(t.Context(), &ententev1.AttestAgentRequest{
		Csr: n.csr, Proof: []byte("x"), Token: &ententev1.AgentTokenEvidence{Id: token.ID, Secret: token.Secret[:]},
	})
	refused(err, codes.PermissionDenied, "proof is not the signature")

	require.NoError(t, s.attestNode(t, n, &token))
	require.NoError(t, s.attestNode(t, n, &token), "its answer may have been lost")
	require.NoError(t, s.attestNode(t, n, nil), "by its key alone")
	refused(s.attestNode(t, other, &token), codes.PermissionDenied, "no such token for an agent")

	// A newer token ends an older one, and a removed member every one.
	older, newer := s.token(t, "node-2"), s.token(t, "node-2")
	refused(s.attestNode(t, other, &older), codes.PermissionDenied, "no such token for an agent")
	_, err = s.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return registration.RemoveMember(tx, "eu-9", false, time.Now())
	})
	require.NoError(t, err)
	refused(s.attestNode(t, other, &newer), codes.PermissionDenied, "no such token for an agent")
}

// TestRestoreBringsNoAgentBack restores a snapshot that is older than an eviction, a ban and an attestation.
func TestRestoreBringsNoAgentBack(t *testing.T) {
	s := room(t)
	evicted, banned, later := newNode(t), newNode(t), newNode(t)
	for name, n := range map[string]node{"evicted": evicted, "banned": banned} {
		token := s.token(t, name)
		require.NoError(t, s.attestNode(t, n, &token))
	}
	open := s.token(t, "open")
	var snapshot bytes.Buffer
	_, err := s.store.Snapshots().Save(t.Context(), &snapshot)
	require.NoError(t, err)

	ctx := administrator(t)
	_, err = s.agents.EvictAgent(ctx, &ententev1.EvictAgentRequest{Name: "evicted"})
	require.NoError(t, err)
	_, err = s.agents.BanAgent(ctx, &ententev1.BanAgentRequest{Name: "banned"})
	require.NoError(t, err)
	token := s.token(t, "later")
	require.NoError(t, s.attestNode(t, later, &token))
	// A second eviction of the name, which has another key by then.
	again := s.token(t, "evicted")
	other := newNode(t)
	require.NoError(t, s.attestNode(t, other, &again))
	_, err = s.agents.EvictAgent(ctx, &ententev1.EvictAgentRequest{Name: "evicted"})
	require.NoError(t, err)
	for range 2 {
		_, err = s.store.Snapshots().Restore(t.Context(), bytes.NewReader(snapshot.Bytes()))
		require.NoError(t, err)
		require.ErrorContains(t, s.attestNode(t, evicted, nil), "no agent has this key")
		require.ErrorContains(t, s.attestNode(t, other, nil), "no agent has this key")
		require.ErrorContains(t, s.attestNode(t, banned, nil), "agent banned is banned")
		require.NoError(t, s.attestNode(t, later, nil))
		require.ErrorContains(t, s.attestNode(t, newNode(t), &open), "no such token for an agent")
	}
}

// TestAgentsEndWithACompromisedMember tests that a compromised member's agents go, since it could have made them up.
func TestAgentsEndWithACompromisedMember(t *testing.T) {
	s := room(t)
	token, n := s.token(t, "node-1"), newNode(t)
	require.NoError(t, s.attestNode(t, n, &token))
	remove := func(member string) {
		_, err := s.store.Update(t.Context(), func(tx *raftstore.Tx) error {
			return registration.RemoveMember(tx, member, true, time.Now())
		})
		require.NoError(t, err)
	}
	remove("another")
	require.NoError(t, s.attestNode(t, n, nil))
	remove(s.store.MemberID())
	require.ErrorContains(t, s.attestNode(t, n, nil), "no agent has this key")
}

// TestAttestedByNameAndKey tests that the SVID of an evicted agent does not work again with its name.
func TestAttestedByNameAndKey(t *testing.T) {
	s := room(t)
	id, err := registration.AgentID(home, "node-1")
	require.NoError(t, err)
	attested := func(n node) bool {
		identity, err := agenttoken.Identity(&n.key.PublicKey)
		require.NoError(t, err)
		ok, err := registration.Attested(s.store.View(), home, id, identity)
		require.NoError(t, err)
		return ok
	}
	stolen, fresh := newNode(t), newNode(t)
	token := s.token(t, "node-1")
	require.NoError(t, s.attestNode(t, stolen, &token))
	require.True(t, attested(stolen))
	require.False(t, attested(fresh))
	_, err = s.agents.EvictAgent(administrator(t), &ententev1.EvictAgentRequest{Name: "node-1"})
	require.NoError(t, err)
	require.False(t, attested(stolen))
	token = s.token(t, "node-1")
	require.NoError(t, s.attestNode(t, fresh, &token))
	require.False(t, attested(stolen))
	require.True(t, attested(fresh))
}

// TestOneKeyIsOfOneAgent redeems a second token with a key, as two calls at the same time can.
func TestOneKeyIsOfOneAgent(t *testing.T) {
	s := room(t)
	n, first, second := newNode(t), s.token(t, "node-1"), s.token(t, "node-2")
	require.NoError(t, s.attestNode(t, n, &first))
	identity, err := agenttoken.Identity(&n.key.PublicKey)
	require.NoError(t, err)
	_, err = registration.Redeem(t.Context(), s.attest, &ententev1.AgentTokenEvidence{
		Id: second.ID, Secret: second.Secret[:],
	}, identity)
	require.Equal(t, codes.AlreadyExists, status.Code(err), err)
	require.ErrorContains(t, err, "agent node-1 is attested with this key")
	require.NoError(t, s.attestNode(t, newNode(t), &second), "the token is not used")
}

// TestEntriesEndWithACompromisedMember tests that the entries go that a compromised member wrote or restored, that its
// leader accepts rows in its own name alone, and that a change on another member keeps an entry.
func TestEntriesEndWithACompromisedMember(t *testing.T) {
	s := room(t)
	ctx := administrator(t)
	create := func(id string) {
		_, err := s.entries.CreateEntry(ctx, &ententev1.CreateEntryRequest{Entry: &ententev1.Entry{
			Id: id, Agent: "n", SpiffeId: "spiffe://eu.example.org/" + id, Selectors: []string{"unix:uid:1"},
		}})
		require.NoError(t, err)
	}
	remove := func(member string, compromised bool) {
		_, err := s.store.Update(t.Context(), func(tx *raftstore.Tx) error {
			return registration.RemoveMember(tx, member, compromised, time.Now())
		})
		require.NoError(t, err)
	}
	left := func() (ids []string) {
		list, err := s.entries.ListEntries(ctx, &ententev1.ListEntriesRequest{})
		require.NoError(t, err)
		for _, e := range list.GetEntries() {
			ids = append(ids, e.GetId())
		}
		return ids
	}
	// Another member writes in its own name, and in no other one.
	counter := uint64(0)
	propose := func(row *statev1.RegistrationEntry) error {
		value, err := proto.Marshal(row)
		require.NoError(t, err)
		counter++
		command, err := proto.Marshal(&statev1.Command{
			Id: &statev1.CommandID{Member: "eu-9", Incarnation: 1, Counter: counter},
			Kind: &statev1.Command_Transaction{Transaction: &statev1.Transaction{
				Base: uint64(s.store.View().Revision()),
				Changes: []*statev1.RowChange{{
					Table: "registration_entries", Key: row.GetId(), Value: value,
				}},
			}},
		})
		require.NoError(t, err)
		_, err = s.store.Service(func(context.Context) (string, bool) { return "eu-9", true }).Propose(
			t.Context(), &ententev1.ProposeRequest{Command: command})
		return err
	}
	row := func(id, on string) *statev1.RegistrationEntry {
		return &statev1.RegistrationEntry{
			Id: id, Agent: "n", SpiffeId: "spiffe://eu.example.org/" + id, Selectors: []string{"unix:uid:1"},
			WrittenOn: on,
		}
	}
	create("own")
	require.ErrorContains(t, propose(row("x", s.store.MemberID())), "sent a row of registration_entries in the name of")
	require.ErrorContains(t, propose(row("x", "")), "sent a row of registration_entries in the name of")
	require.NoError(t, propose(row("bad", "eu-9")))
	require.NoError(t, propose(row("reviewed", "eu-9")))
	_, err := s.entries.UpdateEntry(ctx, &ententev1.UpdateEntryRequest{
		Entry: &ententev1.Entry{Id: "reviewed", Hint: "x"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"hint"}},
	})
	require.NoError(t, err)
	remove("eu-9", false)
	require.Equal(t, []string{"bad", "own", "reviewed"}, left())
	remove("eu-9", true)
	require.Equal(t, []string{"own", "reviewed"}, left())
	create("bad") // what made it unique is free again

	var snapshot bytes.Buffer
	_, err = s.store.Snapshots().Save(t.Context(), &snapshot)
	require.NoError(t, err)
	_, err = s.store.Snapshots().Restore(t.Context(), bytes.NewReader(snapshot.Bytes()))
	require.NoError(t, err)
	require.Equal(t, []string{"bad", "own", "reviewed"}, left())
	remove(s.store.MemberID(), true)
	require.Empty(t, left())
}

// TestRolesOfEntriesHaveDomains gives the ID of an entry a role, and then the same one in a further domain.
func TestRolesOfEntriesHaveDomains(t *testing.T) {
	s := room(t)
	ctx := administrator(t)
	token, n := s.token(t, "node-1"), newNode(t)
	require.NoError(t, s.attestNode(t, n, &token))
	const id = "spiffe://eu.example.org/web"
	give := func(role ententev1.Role, td string) {
		g, err := grant.Parse(&ententev1.Grant{Role: role, SpiffeId: id, TrustDomain: td})
		require.NoError(t, err)
		_, err = s.store.Update(ctx, func(tx *raftstore.Tx) error {
			_, err := grant.Create(tx, g, grant.Origin{By: "test", On: s.store.MemberID(), At: time.Now()})
			return err
		})
		require.NoError(t, err)
	}
	agentID, err := registration.AgentID(home, "node-1")
	require.NoError(t, err)
	agent := access.WithCaller(t.Context(), access.SVIDCaller(agentID))
	issue := func() codes.Code {
		answer, err := s.nodes.IssueEntryX509SVIDs(agent, &ententev1.IssueEntryX509SVIDsRequest{
			Requests: []*ententev1.EntryX509Request{{EntryId: "web", Csr: n.csr}},
		})
		require.NoError(t, err)
		return codes.Code(answer.GetResults()[0].GetFailure().GetCode()) //nolint:gosec // a gRPC code
	}
	permit := func() {
		_, err := s.entries.UpdateEntry(ctx, &ententev1.UpdateEntryRequest{
			Entry: &ententev1.Entry{Id: "web", Hint: "x"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"hint"}},
		})
		require.NoError(t, err)
	}
	give(grant.Admin, "eu.example.org")
	_, err = s.entries.CreateEntry(ctx, &ententev1.CreateEntryRequest{Entry: &ententev1.Entry{
		Id: "web", Agent: "node-1", SpiffeId: id, Selectors: []string{"unix:uid:1"},
	}})
	require.NoError(t, err)
	require.Equal(t, codes.OK, issue())
	give(grant.Admin, "pay.example.org")
	require.Equal(t, codes.PermissionDenied, issue(), "admin of another domain")
	permit()
	require.Equal(t, codes.OK, issue())
	give(grant.Admin, "")
	require.Equal(t, codes.PermissionDenied, issue(), "admin of every domain")
	permit()
	require.Equal(t, codes.OK, issue())
	give(grant.Admin, "us.example.org")
	require.Equal(t, codes.OK, issue(), "no more than before")
	give(grant.Operator, "us.example.org")
	require.Equal(t, codes.PermissionDenied, issue(), "another role")
}

func TestListsInPages(t *testing.T) {
	s := room(t)
	ctx := administrator(t)
	const n = 7
	for i := range n {
		_, err := s.entries.CreateEntry(ctx, &ententev1.CreateEntryRequest{Entry: &ententev1.Entry{
			Id: fmt.Sprintf("e%d", i), Agent: fmt.Sprintf("n%d", i%2), SpiffeId: "spiffe://eu.example.org/web",
			Selectors: []string{fmt.Sprintf("unix:uid:%d", i)},
		}})
		require.NoError(t, err)
		token := s.token(t, fmt.Sprintf("node-%d", i))
		require.NoError(t, s.attestNode(t, newNode(t), &token))
	}
	var ids, names []string
	for m := (&ententev1.ListEntriesRequest{PageSize: 2}); ; {
		page, err := s.entries.ListEntries(ctx, m)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.GetEntries()), 2)
		for _, e := range page.GetEntries() {
			ids = append(ids, e.GetId())
		}
		if m.PageToken = page.GetNextPageToken(); m.PageToken == "" {
			break
		}
	}
	require.Equal(t, []string{"e0", "e1", "e2", "e3", "e4", "e5", "e6"}, ids)
	for m := (&ententev1.ListAgentsRequest{PageSize: 3}); ; {
		page, err := s.agents.ListAgents(ctx, m)
		require.NoError(t, err)
		for _, a := range page.GetAgents() {
			names = append(names, a.GetName())
		}
		if m.PageToken = page.GetNextPageToken(); m.PageToken == "" {
			break
		}
	}
	require.Len(t, names, n)
	of, err := s.entries.ListEntries(ctx, &ententev1.ListEntriesRequest{Agent: "n1"})
	require.NoError(t, err)
	require.Len(t, of.GetEntries(), 3)
	_, err = s.entries.ListEntries(ctx, &ententev1.ListEntriesRequest{PageSize: -1})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	_, err = s.entries.ListEntries(access.WithCaller(t.Context(), access.Caller{}), &ententev1.ListEntriesRequest{})
	require.NoError(t, err)
}

// entryStream receives the messages of a stream of entries.
type entryStream struct {
	grpc.ServerStream
	ctx      context.Context //nolint:containedctx // a stream has one
	messages chan *ententev1.WatchEntriesResponse
}

func (s entryStream) Context() context.Context { return s.ctx }

func (s entryStream) Send(m *ententev1.WatchEntriesResponse) error {
	s.messages <- m
	return nil
}

// TestStreamsCarryWhatConcernsAnAgent reads the entries of one agent: first all, then differences, and of no other one.
func TestStreamsCarryWhatConcernsAnAgent(t *testing.T) {
	s := room(t)
	ctx := administrator(t)
	token, n := s.token(t, "node-1"), newNode(t)
	require.NoError(t, s.attestNode(t, n, &token))
	create := func(id string, change func(*ententev1.Entry)) {
		e := &ententev1.Entry{
			Id: id, Agent: "node-1", SpiffeId: "spiffe://eu.example.org/" + id, Selectors: []string{"unix:uid:1"},
		}
		change(e)
		_, err := s.entries.CreateEntry(ctx, &ententev1.CreateEntryRequest{Entry: e})
		require.NoError(t, err)
	}
	same := func(*ententev1.Entry) {}
	create("web", same)
	id, err := registration.AgentID(home, "node-1")
	require.NoError(t, err)
	watching, stop := context.WithCancel(access.WithCaller(t.Context(), access.SVIDCaller(id)))
	stream := entryStream{ctx: watching, messages: make(chan *ententev1.WatchEntriesResponse)}
	ended := make(chan error, 1)
	go func() { ended <- s.nodes.WatchEntries(&ententev1.WatchEntriesRequest{}, stream) }()
	first := <-stream.messages
	require.True(t, first.GetWhole())
	if len(first.GetChanged()) == 0 {
		first = <-stream.messages // the index had not followed yet
	}
	require.Equal(t, "web", first.GetChanged()[0].GetId())

	create("other", func(e *ententev1.Entry) { e.Agent = "node-2" })
	create("everywhere", func(e *ententev1.Entry) {
		e.Agent, e.ParentSelectors = "", []string{"agent:attestation:join_token"}
	})
	next := <-stream.messages
	require.False(t, next.GetWhole())
	require.Len(t, next.GetChanged(), 1)
	require.Equal(t, "everywhere", next.GetChanged()[0].GetId())
	_, err = s.entries.DeleteEntry(ctx, &ententev1.DeleteEntryRequest{Id: "web"})
	require.NoError(t, err)
	require.Equal(t, []string{"web"}, (<-stream.messages).GetDeleted())
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)

	// The member decides by the entry, and not by the request.
	agent := access.WithCaller(t.Context(), access.SVIDCaller(id))
	answer, err := s.nodes.IssueEntryX509SVIDs(agent, &ententev1.IssueEntryX509SVIDsRequest{
		Requests: []*ententev1.EntryX509Request{{EntryId: "everywhere", Csr: n.csr}, {EntryId: "other", Csr: n.csr}},
	})
	require.NoError(t, err)
	require.Equal(t, "a", answer.GetResults()[0].GetSvid().GetAuthorityId())
	require.EqualValues(t, codes.PermissionDenied, answer.GetResults()[1].GetFailure().GetCode())
	signed := <-s.signed
	require.Equal(t, "spiffe://eu.example.org/everywhere", signed.GetSpiffeId())
	require.Equal(t, time.Hour, signed.GetTtl().AsDuration())
	_, err = s.nodes.RenewAgent(agent, &ententev1.RenewAgentRequest{Csr: newNode(t).csr})
	require.Equal(t, codes.PermissionDenied, status.Code(err), "another key than the agent's")
	_, err = s.nodes.RenewAgent(administrator(t), &ententev1.RenewAgentRequest{Csr: n.csr})
	require.Equal(t, codes.PermissionDenied, status.Code(err), "no agent")
}

func TestEtags(t *testing.T) {
	s := room(t)
	ctx := administrator(t)
	made, err := s.entries.CreateEntry(ctx, &ententev1.CreateEntryRequest{Entry: &ententev1.Entry{
		Agent: "n", SpiffeId: "spiffe://eu.example.org/web", Selectors: []string{"unix:uid:1"},
	}})
	require.NoError(t, err)
	_, err = s.entries.DeleteEntry(ctx, &ententev1.DeleteEntryRequest{Id: made.GetId(), Etag: made.GetEtag() + "1"})
	require.Equal(t, codes.Aborted, status.Code(err), err)
	_, err = s.entries.DeleteEntry(access.WithCaller(t.Context(), access.Caller{}),
		&ententev1.DeleteEntryRequest{Id: made.GetId(), Etag: made.GetEtag() + "1"})
	require.Equal(t, codes.NotFound, status.Code(err), "who may not see it learns nothing by etags: %v", err)
	effects, err := s.entries.DeleteEntry(ctx, &ententev1.DeleteEntryRequest{
		Id: made.GetId(), Etag: made.GetEtag(), DryRun: true,
	})
	require.NoError(t, err)
	require.Len(t, effects.GetEffects(), 1)
	_, err = s.entries.DeleteEntry(ctx, &ententev1.DeleteEntryRequest{Id: made.GetId(), Etag: made.GetEtag()})
	require.NoError(t, err)
	deleted, err := s.store.Update(ctx, func(tx *raftstore.Tx) error {
		n, err := registration.EndDomain(tx, home)
		require.Zero(t, n)
		return err
	})
	require.NoError(t, err)
	require.NotNil(t, deleted)
}
