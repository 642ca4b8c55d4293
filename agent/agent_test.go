package agent_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/ententehq/entente/agent"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/node/nodetest"
)

// patience is far longer than anything here takes on a busy machine.
const patience = 5 * time.Minute

const home = "dev.example.org"

func context1(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// cluster is a real member with an administrator.
func cluster(t *testing.T) (*nodetest.Member, *client.Client) {
	t.Helper()
	m, err := nodetest.Start()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	c, err := client.New(t.Context(), client.WithAdminSocket(m.Socket))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return m, c
}

// running is an agent in this process.
type running struct {
	dir, socket string
	cfg         agent.Config
	log         *syncBuffer
	stop        context.CancelFunc
	ended       chan error
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// configured returns an agent that does not run yet.
func configured(t *testing.T, token string) *running {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent-") // short, since the path of a socket has at most 107 bytes
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &running{dir: dir, socket: filepath.Join(dir, "public", "api.sock")}
	r.cfg = agent.Config{
		DataDir: filepath.Join(dir, "data"), Socket: r.socket, AdminSocket: filepath.Join(dir, "admin", "admin.sock"),
		Token: token,
	}
	return r
}

// start runs the agent until its socket is served.
func (r *running) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	started := make(chan struct{})
	r.stop, r.ended, r.log = cancel, make(chan error, 1), &syncBuffer{}
	go func() {
		r.ended <- agent.Run(ctx, r.cfg, agent.Options{LogOutput: r.log, Started: func() { close(started) }})
	}()
	t.Cleanup(cancel)
	select {
	case <-started:
	case err := <-r.ended:
		require.NoError(t, err, "the agent did not start: %s", r.log)
	case <-time.After(patience):
		require.FailNow(t, "the agent did not start", r.log.String())
	}
}

// end stops the agent and waits for it.
func (r *running) end(t *testing.T) {
	t.Helper()
	r.stop()
	require.NoError(t, <-r.ended, r.log)
}

func token(t *testing.T, c *client.Client, name string) string {
	t.Helper()
	made, err := c.Agents().CreateAgentToken(context1(t), &ententev1.CreateAgentTokenRequest{Agent: name})
	require.NoError(t, err)
	require.Equal(t, "spiffe://"+home+"/entente/agent/"+name, made.GetSpiffeId())
	return made.GetToken()
}

// own is the selector of this process.
func own() string { return fmt.Sprintf("unix:uid:%d", os.Getuid()) }

func entry(t *testing.T, c *client.Client, e *ententev1.Entry) *ententev1.Entry {
	t.Helper()
	made, err := c.Entries().CreateEntry(context1(t), &ententev1.CreateEntryRequest{Entry: e})
	require.NoError(t, err)
	return made
}

func (r *running) address() workloadapi.ClientOption {
	return workloadapi.WithAddr("unix://" + r.socket)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 10*time.Millisecond, what)
}

// TestWorkloadAPI has go-spiffe's own sources read from an agent of a real member.
func TestWorkloadAPI(t *testing.T) {
	_, c := cluster(t)
	r := configured(t, token(t, c, "node-1"))
	web := entry(t, c, &ententev1.Entry{
		Agent: "node-1", SpiffeId: "spiffe://" + home + "/web", Selectors: []string{own()},
		DnsNames: []string{"web.example.org"}, X509SvidTtl: durationpb.New(10 * time.Minute), Hint: "internal",
	})
	r.start(t)
	ctx := context1(t)

	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(r.address()))
	require.NoError(t, err)
	defer source.Close()
	svid, err := source.GetX509SVID()
	require.NoError(t, err)
	require.Equal(t, "spiffe://"+home+"/web", svid.ID.String())
	require.Equal(t, "internal", svid.Hint)
	leaf := svid.Certificates[0]
	require.Equal(t, []string{"web.example.org"}, leaf.DNSNames)
	require.LessOrEqual(t, time.Until(leaf.NotAfter), 10*time.Minute, "the lifetime of the entry")
	bundle, err := source.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	require.NoError(t, err)
	require.NotEmpty(t, bundle.X509Authorities())
	handshake(t, source)

	// Tokens.
	jwts, err := workloadapi.NewJWTSource(ctx, workloadapi.WithClientOptions(r.address()))
	require.NoError(t, err)
	defer jwts.Close()
	got, err := jwts.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "db"})
	require.NoError(t, err)
	require.Equal(t, svid.ID, got.ID)
	_, err = jwtsvid.ParseAndValidate(got.Marshal(), jwts, []string{"db"})
	require.NoError(t, err)
	again, err := jwts.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "db"})
	require.NoError(t, err)
	require.Equal(t, got.Marshal(), again.Marshal(), "the agent has it")
	api, err := workloadapi.New(ctx, r.address())
	require.NoError(t, err)
	defer api.Close()
	valid, err := api.ValidateJWTSVID(ctx, got.Marshal(), "db")
	require.NoError(t, err)
	require.Equal(t, svid.ID, valid.ID)
	_, err = api.ValidateJWTSVID(ctx, got.Marshal(), "other")
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	_, err = api.FetchJWTSVID(ctx, jwtsvid.Params{
		Audience: "db", Subject: spiffeid.RequireFromString("spiffe://x.org/a"),
	})
	require.Equal(t, codes.PermissionDenied, status.Code(err))

	// A change of the entry, a second entry, and the end of both reach the stream that is open.
	updated, err := c.Entries().UpdateEntry(ctx, &ententev1.UpdateEntryRequest{
		Entry: &ententev1.Entry{Id: web.GetId(), DnsNames: []string{"shop.example.org"}}, Etag: web.GetEtag(),
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"dns_names"}},
	})
	require.NoError(t, err)
	require.NotEqual(t, web.GetEtag(), updated.GetEtag())
	eventually(t, "an SVID by the new entry", func() bool {
		svid, err := source.GetX509SVID()
		return err == nil && svid.Certificates[0].DNSNames[0] == "shop.example.org"
	})
	_, err = c.Entries().DeleteEntry(ctx, &ententev1.DeleteEntryRequest{Id: web.GetId()})
	require.NoError(t, err)
	eventually(t, "no identity", func() bool {
		_, err := api.FetchX509SVID(ctx)
		return status.Code(err) == codes.PermissionDenied
	})
	require.Contains(t, r.log.String(), "a workload has no identity")
	require.Contains(t, r.log.String(), own())
}

// TestFederatedBundles reads the bundle of a foreign trust domain, which the entry names and later does not.
func TestFederatedBundles(t *testing.T) {
	_, c := cluster(t)
	foreign, err := nodetest.StartIn(spiffeid.RequireTrustDomainFromString("us.example.org"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, foreign.Close()) })
	there, err := client.New(t.Context(), client.WithAdminSocket(foreign.Socket))
	require.NoError(t, err)
	t.Cleanup(func() { _ = there.Close() })
	ctx := context1(t)
	bundle, err := there.Bundles().GetBundle(ctx, &ententev1.GetBundleRequest{})
	require.NoError(t, err)
	_, err = c.Federation().CreateRelationship(ctx, &ententev1.CreateRelationshipRequest{
		Relationship: &ententev1.Relationship{
			TrustDomain: "us.example.org", Url: "https://" + foreign.BundleEndpoint,
			Profile:          ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
			EndpointSpiffeId: "spiffe://us.example.org/entente/bundle-endpoint",
		},
		BootstrapBundle: bundle.GetDocument(),
	})
	require.NoError(t, err)
	r := configured(t, token(t, c, "node-1"))
	web := entry(t, c, &ententev1.Entry{
		Agent: "node-1", SpiffeId: "spiffe://" + home + "/web", Selectors: []string{own()},
		FederatesWith: []string{"us.example.org"},
	})
	r.start(t)
	outgoing := metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
	api := workload.NewSpiffeWorkloadAPIClient(dial(t, r))
	svids, err := api.FetchX509SVID(outgoing, &workload.X509SVIDRequest{})
	require.NoError(t, err)
	bundles, err := api.FetchX509Bundles(outgoing, &workload.X509BundlesRequest{})
	require.NoError(t, err)
	jwks, err := api.FetchJWTBundles(outgoing, &workload.JWTBundlesRequest{})
	require.NoError(t, err)
	us := spiffeid.RequireTrustDomainFromString("us.example.org")
	for {
		m, err := svids.Recv()
		require.NoError(t, err)
		require.NotContains(t, m.GetFederatedBundles(), "spiffe://"+home, "the own bundle is with the SVID")
		if raw, ok := m.GetFederatedBundles()["spiffe://us.example.org"]; ok {
			roots, err := x509.ParseCertificates(raw)
			require.NoError(t, err)
			require.NotEmpty(t, roots)
			break
		}
	}
	for {
		m, err := bundles.Recv()
		require.NoError(t, err)
		require.Contains(t, m.GetBundles(), "spiffe://"+home)
		if _, ok := m.GetBundles()["spiffe://us.example.org"]; ok {
			break
		}
	}
	for {
		m, err := jwks.Recv()
		require.NoError(t, err)
		if raw, ok := m.GetBundles()["spiffe://us.example.org"]; ok {
			keys, err := jwtbundle.Parse(us, raw)
			require.NoError(t, err)
			require.NotEmpty(t, keys.JWTAuthorities())
			require.NotContains(t, string(raw), "x5c")
			break
		}
	}
	_, err = c.Entries().UpdateEntry(ctx, &ententev1.UpdateEntryRequest{
		Entry: &ententev1.Entry{Id: web.GetId()}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"federates_with"}},
	})
	require.NoError(t, err)
	for {
		m, err := bundles.Recv()
		require.NoError(t, err)
		if _, ok := m.GetBundles()["spiffe://us.example.org"]; !ok {
			break
		}
	}
}

// handshake makes a mutual TLS connection between two users of a source.
func handshake(t *testing.T, source *workloadapi.X509Source) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	server := tls.Server(a, tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeAny()))
	ended := make(chan error, 1)
	go func() { ended <- server.HandshakeContext(context1(t)) }()
	require.NoError(t, tls.Client(b, tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeAny())).
		HandshakeContext(context1(t)))
	require.NoError(t, <-ended)
}

// dial connects to the socket of the workloads without a library.
func dial(t *testing.T, r *running) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+r.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestSecurityHeader(t *testing.T) {
	_, c := cluster(t)
	r := configured(t, token(t, c, "node-1"))
	r.start(t)
	api := workload.NewSpiffeWorkloadAPIClient(dial(t, r))
	stream, err := api.FetchX509SVID(context1(t), &workload.X509SVIDRequest{})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.InvalidArgument, status.Code(err), err)
	_, err = api.FetchJWTSVID(context1(t), &workload.JWTSVIDRequest{Audience: []string{"a"}})
	require.Equal(t, codes.InvalidArgument, status.Code(err), err)
}

// TestTaintReplacesAtOnce tests that the SVIDs of a tainted authority are replaced before their half-life.
func TestTaintReplacesAtOnce(t *testing.T) {
	_, c := cluster(t)
	r := configured(t, token(t, c, "node-1"))
	entry(t, c, &ententev1.Entry{Agent: "node-1", SpiffeId: "spiffe://" + home + "/web", Selectors: []string{own()}})
	r.start(t)
	ctx := context1(t)
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(r.address()))
	require.NoError(t, err)
	defer source.Close()
	first, err := source.GetX509SVID()
	require.NoError(t, err)
	_, err = c.Authorities().PrepareAuthorities(ctx, &ententev1.PrepareAuthoritiesRequest{TrustDomain: home})
	require.NoError(t, err)
	list, err := c.Authorities().ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{TrustDomain: home})
	require.NoError(t, err)
	for _, a := range list.GetAuthorities() {
		if a.GetKind() == ententev1.AuthorityKind_AUTHORITY_KIND_X509 &&
			a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE {
			_, err = c.Authorities().TaintAuthority(ctx, &ententev1.TaintAuthorityRequest{
				TrustDomain: home, Id: a.GetId(),
			})
			require.NoError(t, err)
		}
	}
	eventually(t, "an SVID of another authority", func() bool {
		now, err := source.GetX509SVID()
		return err == nil && !bytes.Equal(now.Certificates[0].AuthorityKeyId, first.Certificates[0].AuthorityKeyId)
	})
}

// TestAgentsLife tests what a token, a restart, a ban and an eviction mean for an agent.
func TestAgentsLife(t *testing.T) {
	m, c := cluster(t)
	ctx := context1(t)
	text := token(t, c, "node-1")
	r := configured(t, text)
	entry(t, c, &ententev1.Entry{Agent: "node-1", SpiffeId: "spiffe://" + home + "/web", Selectors: []string{own()}})
	r.start(t)
	info, err := os.Stat(filepath.Join(r.cfg.DataDir, "agent.key"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	shown, err := c.Agents().GetAgent(ctx, &ententev1.GetAgentRequest{Name: "node-1"})
	require.NoError(t, err)
	require.Equal(t, ententev1.AgentState_AGENT_STATE_ATTESTED, shown.GetState())
	require.EqualValues(t, 1, shown.GetEntries())
	require.Equal(t, []string{"agent:attestation:join_token", "agent:name:node-1"}, shown.GetSelectors())

	// A second agent cannot use the token, and no token is made for a name that is taken.
	other := configured(t, text)
	err = agent.Run(ctx, other.cfg, agent.Options{LogOutput: io.Discard})
	require.ErrorContains(t, err, "this cluster has no such token for an agent")
	_, err = c.Agents().CreateAgentToken(ctx, &ententev1.CreateAgentTokenRequest{Agent: "node-1"})
	require.Equal(t, codes.AlreadyExists, status.Code(err), err)

	// A restart needs no token.
	r.end(t)
	r.cfg.Token = ""
	r.start(t)

	// What an agent has is not more than its entries.
	asAgent := agentClient(t, m, r)
	_, err = asAgent.Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err), err)
	_, err = asAgent.SVIDs().IssueJWTSVID(ctx, &ententev1.IssueJWTSVIDRequest{
		SpiffeId: "spiffe://" + home + "/web", Audience: []string{"a"},
	})
	require.Equal(t, codes.PermissionDenied, status.Code(err), err)
	foreign := entry(t, c, &ententev1.Entry{
		Agent: "node-2", SpiffeId: "spiffe://" + home + "/db", Selectors: []string{own()},
	})
	_, err = asAgent.Node().IssueEntryJWTSVID(ctx, &ententev1.IssueEntryJWTSVIDRequest{
		EntryId: foreign.GetId(), Audience: []string{"a"},
	})
	require.Equal(t, codes.PermissionDenied, status.Code(err), err)

	// A ban ends the streams and the issuing.
	stream, err := asAgent.Node().WatchEntries(ctx, &ententev1.WatchEntriesRequest{})
	require.NoError(t, err)
	whole, err := stream.Recv()
	require.NoError(t, err)
	require.Len(t, whole.GetChanged(), 1)
	effects, err := c.Agents().BanAgent(ctx, &ententev1.BanAgentRequest{Name: "node-1", DryRun: true})
	require.NoError(t, err)
	require.Len(t, effects.GetEffects(), 2)
	_, err = c.Agents().BanAgent(ctx, &ententev1.BanAgentRequest{Name: "node-1"})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.PermissionDenied, status.Code(err), err)
	jwt := &ententev1.IssueEntryJWTSVIDRequest{EntryId: whole.GetChanged()[0].GetId(), Audience: []string{"a"}}
	_, err = asAgent.Node().IssueEntryJWTSVID(ctx, jwt)
	require.Equal(t, codes.PermissionDenied, status.Code(err), err)
	r.refused(t)
	r.end(t)
	err = agent.Run(ctx, r.cfg, agent.Options{LogOutput: io.Discard})
	require.ErrorIs(t, err, errRefused(err))
	require.ErrorContains(t, err, "agent node-1 is banned")

	// An eviction admits the name again, with another token alone.
	_, err = c.Agents().EvictAgent(ctx, &ententev1.EvictAgentRequest{Name: "node-1"})
	require.NoError(t, err)
	err = agent.Run(ctx, r.cfg, agent.Options{LogOutput: io.Discard})
	require.ErrorContains(t, err, "no agent has this key")
	require.NoError(t, os.Rename(r.cfg.DataDir, r.cfg.DataDir+".stolen"))
	r.cfg.Token = token(t, c, "node-1")
	r.start(t)
	_, err = agentClient(t, m, r).Node().IssueEntryJWTSVID(ctx, jwt)
	require.NoError(t, err)
	_, err = asAgent.Node().IssueEntryJWTSVID(ctx, jwt)
	require.Equal(t, codes.PermissionDenied, status.Code(err), "the SVID of before the eviction works again: %v", err)
	r.end(t)
}

// refused waits until the agent knows that the cluster refuses it.
func (r *running) refused(t *testing.T) {
	t.Helper()
	eventually(t, "a refused agent is not ready", func() bool {
		h, err := agent.ReadHealth(context1(t), r.cfg.AdminSocket)
		return err == nil && !h.Ready && strings.Contains(h.Reason, "the cluster refuses the agent: ") &&
			strings.Contains(h.Reason, "no agent is attested under this name")
	})
}

// TestHealthOfRefusedAgents tests that an evicted agent is not ready, that one is again which was admitted meanwhile,
// and that an outage of the cluster makes no agent unready whose SVID is valid.
func TestHealthOfRefusedAgents(t *testing.T) {
	m, err := nodetest.Start()
	require.NoError(t, err)
	closed := false
	t.Cleanup(func() {
		if !closed {
			_ = m.Close()
		}
	})
	c, err := client.New(t.Context(), client.WithAdminSocket(m.Socket))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	evicted, kept := configured(t, token(t, c, "node-1")), configured(t, token(t, c, "node-2"))
	evicted.start(t)
	kept.start(t)
	_, err = c.Agents().EvictAgent(context1(t), &ententev1.EvictAgentRequest{Name: "node-1"})
	require.NoError(t, err)
	evicted.refused(t)
	evicted.end(t)
	evicted.cfg.Token = token(t, c, "node-1")
	evicted.start(t)
	h, err := agent.ReadHealth(context1(t), evicted.cfg.AdminSocket)
	require.NoError(t, err)
	require.True(t, h.Ready, h.Reason)

	closed = true
	require.NoError(t, m.Close())
	eventually(t, "the outage", func() bool {
		return strings.Contains(kept.log.String(), "receives no changes of entries")
	})
	h, err = agent.ReadHealth(context1(t), kept.cfg.AdminSocket)
	require.NoError(t, err)
	require.True(t, h.Ready, h.Reason)
	kept.end(t)
	evicted.end(t)
}

// TestRepeatedCalls repeats calls that make something with their request ids: an entry whose ID the member chose, one
// whose ID the caller chose, and a token, whose secret is returned once.
func TestRepeatedCalls(t *testing.T) {
	_, c := cluster(t)
	ctx := context1(t)
	for i, id := range []string{"", "web"} {
		request := &ententev1.CreateEntryRequest{RequestId: client.NewRequestID(), Entry: &ententev1.Entry{
			Id: id, Agent: "node-1", SpiffeId: fmt.Sprint("spiffe://", home, "/", i), Selectors: []string{own()},
		}}
		made, err := c.Entries().CreateEntry(ctx, request)
		require.NoError(t, err)
		again, err := c.Entries().CreateEntry(ctx, request)
		require.NoError(t, err)
		require.Equal(t, made.GetId(), again.GetId())
		require.Equal(t, made.GetEtag(), again.GetEtag())
	}
	list, err := c.Entries().ListEntries(ctx, &ententev1.ListEntriesRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetEntries(), 2)

	request := &ententev1.CreateAgentTokenRequest{RequestId: client.NewRequestID(), Agent: "node-1"}
	made, err := c.Agents().CreateAgentToken(ctx, request)
	require.NoError(t, err)
	require.NotEmpty(t, made.GetToken())
	again, err := c.Agents().CreateAgentToken(ctx, request)
	require.NoError(t, err)
	require.Equal(t, made.GetAgentToken().GetId(), again.GetAgentToken().GetId())
	require.Empty(t, again.GetToken())
	_, err = c.Agents().RevokeAgentToken(ctx, &ententev1.RevokeAgentTokenRequest{Agent: "node-1"})
	require.NoError(t, err)
	_, err = c.Agents().CreateAgentToken(ctx, request)
	require.Equal(t, codes.FailedPrecondition, status.Code(err), err)
	require.ErrorContains(t, err, "what it made is gone")
}

// errRefused returns err if it is one of a decision of the cluster.
func errRefused(err error) error {
	if strings.Contains(err.Error(), "the cluster refused this agent") {
		return err
	}
	return errors.New("not refused")
}

// agentClient returns a client with the SVID that an agent would have, by its key.
func agentClient(t *testing.T, m *nodetest.Member, r *running) *client.Client {
	t.Helper()
	source, err := agent.Identity(context1(t), r.cfg)
	require.NoError(t, err)
	c, err := client.New(t.Context(), client.WithAddresses(m.Address),
		client.WithSource(spiffeid.RequireTrustDomainFromString(home), source, source))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestSelectors tests the selectors of this process, of which all must match.
func TestSelectors(t *testing.T) {
	_, c := cluster(t)
	r := configured(t, token(t, c, "node-1"))
	exe, err := os.Executable()
	require.NoError(t, err)
	exe, err = filepath.EvalSymlinks(exe)
	require.NoError(t, err)
	program, err := os.ReadFile(exe)
	require.NoError(t, err)
	sum := sha256.Sum256(program)
	id := func(name string) string { return "spiffe://" + home + "/" + name }
	for name, selectors := range map[string][]string{
		"all": {own(), fmt.Sprintf("unix:gid:%d", os.Getgid()), "unix:path:" + exe,
			"unix:sha256:" + hex.EncodeToString(sum[:])},
		"other-user":    {"unix:uid:4294967"},
		"other-program": {own(), "unix:sha256:" + strings.Repeat("0", 64)},
	} {
		entry(t, c, &ententev1.Entry{Agent: "node-1", SpiffeId: id(name), Selectors: selectors})
	}
	entry(t, c, &ententev1.Entry{
		ParentSelectors: []string{"agent:attestation:join_token"}, SpiffeId: id("everywhere"),
		Selectors: []string{own()},
	})
	entry(t, c, &ententev1.Entry{
		ParentSelectors: []string{"agent:name:another"}, SpiffeId: id("elsewhere"), Selectors: []string{own()},
	})
	r.start(t)
	api, err := workloadapi.New(t.Context(), r.address())
	require.NoError(t, err)
	defer api.Close()
	eventually(t, "both identities", func() bool {
		svids, err := api.FetchX509SVIDs(context1(t))
		if err != nil || len(svids) != 2 {
			return false
		}
		return svids[0].ID.String() == id("all") && svids[1].ID.String() == id("everywhere")
	})
}

// TestEntriesAreRefused tests what no entry can be made for.
func TestEntriesAreRefused(t *testing.T) {
	_, c := cluster(t)
	ok := func() *ententev1.Entry {
		return &ententev1.Entry{Agent: "n", SpiffeId: "spiffe://" + home + "/web", Selectors: []string{"unix:uid:1"}}
	}
	for name, test := range map[string]struct {
		change func(*ententev1.Entry)
		code   codes.Code
		text   string
	}{
		"reserved": {
			func(e *ententev1.Entry) { e.SpiffeId = "spiffe://" + home + "/entente/agent/n" },
			codes.PermissionDenied, "only the server itself issues",
		},
		"not hosted": {
			func(e *ententev1.Entry) { e.SpiffeId = "spiffe://other.org/a" },
			codes.FailedPrecondition, "is not the authority for other.org",
		},
		"no selector": {
			func(e *ententev1.Entry) { e.Selectors = nil }, codes.InvalidArgument, "selectors is empty",
		},
		"bad selector": {
			func(e *ententev1.Entry) { e.Selectors = []string{"uid"} }, codes.InvalidArgument, "write TYPE:VALUE",
		},
		"no agent": {func(e *ententev1.Entry) { e.Agent = "" }, codes.InvalidArgument, "for no agent"},
		"two parents": {
			func(e *ententev1.Entry) { e.ParentSelectors = []string{"a:b"} }, codes.InvalidArgument, "both given",
		},
		"long": {
			func(e *ententev1.Entry) { e.X509SvidTtl = durationpb.New(100 * time.Hour) },
			codes.InvalidArgument, "choose less",
		},
		"own domain": {
			func(e *ententev1.Entry) { e.FederatesWith = []string{home} },
			codes.InvalidArgument, "the trust domain of the entry",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := ok()
			test.change(e)
			_, err := c.Entries().CreateEntry(context1(t), &ententev1.CreateEntryRequest{Entry: e})
			require.Equal(t, test.code, status.Code(err), err)
			require.ErrorContains(t, err, test.text)
		})
	}
	first := entry(t, c, ok())
	_, err := c.Entries().CreateEntry(context1(t), &ententev1.CreateEntryRequest{Entry: ok()})
	require.Equal(t, codes.AlreadyExists, status.Code(err), err)
	require.ErrorContains(t, err, first.GetId())
}

// TestRolesDoNotGrow tests that an entry gives nobody a role: neither an issuer by writing one for an ID that has a
// role, nor an agent when an ID with an entry is given one.
func TestRolesDoNotGrow(t *testing.T) {
	m, c := cluster(t)
	ctx := context1(t)
	issuer := spiffeid.RequireFromString("spiffe://" + home + "/ci")
	for _, g := range []*ententev1.Grant{
		{Role: ententev1.Role_ROLE_ISSUER, SpiffeId: issuer.String(), TrustDomain: home, PathPrefix: "/apps"},
		{Role: ententev1.Role_ROLE_ADMIN, SpiffeId: "spiffe://" + home + "/apps/root"},
	} {
		_, err := c.Access().GrantRole(ctx, &ententev1.GrantRoleRequest{Grant: g})
		require.NoError(t, err)
	}
	source, err := client.NewX509Source(ctx, c, client.X509SourceConfig{ID: issuer})
	require.NoError(t, err)
	defer source.Close()
	ci, err := client.New(ctx, client.WithAddresses(m.Address), client.WithSource(issuer.TrustDomain(), source, source))
	require.NoError(t, err)
	defer ci.Close()
	create := func(path string) error {
		_, err := ci.Entries().CreateEntry(ctx, &ententev1.CreateEntryRequest{Entry: &ententev1.Entry{
			Agent: "node-1", SpiffeId: "spiffe://" + home + path, Selectors: []string{own()},
		}})
		return err
	}
	require.NoError(t, create("/apps/web"))
	require.ErrorContains(t, create("/db"), "for the path /db")
	require.ErrorContains(t, create("/apps/root"), "SVIDs of that ID have the role admin")
	_, err = ci.Agents().CreateAgentToken(ctx, &ententev1.CreateAgentTokenRequest{Agent: "x"})
	require.Equal(t, codes.PermissionDenied, status.Code(err), err)
	administrators := entry(t, c, &ententev1.Entry{
		Agent: "node-1", SpiffeId: "spiffe://" + home + "/db", Selectors: []string{own()},
	})
	_, err = ci.Entries().DeleteEntry(ctx, &ententev1.DeleteEntryRequest{Id: administrators.GetId()})
	require.Equal(t, codes.PermissionDenied, status.Code(err), err)

	// The ID of an entry is given a role later.
	r := configured(t, token(t, c, "node-1"))
	r.start(t)
	node := agentClient(t, m, r).Node()
	list, err := c.Entries().ListEntries(ctx, &ententev1.ListEntriesRequest{SpiffeId: "spiffe://" + home + "/apps/web"})
	require.NoError(t, err)
	require.Len(t, list.GetEntries(), 1)
	id := list.GetEntries()[0].GetId()
	request := &ententev1.IssueEntryJWTSVIDRequest{EntryId: id, Audience: []string{"a"}}
	_, err = node.IssueEntryJWTSVID(ctx, request)
	require.NoError(t, err)
	_, err = c.Access().GrantRole(ctx, &ententev1.GrantRoleRequest{Grant: &ententev1.Grant{
		Role: ententev1.Role_ROLE_OPERATOR, SpiffeId: "spiffe://" + home + "/apps/web",
	}})
	require.NoError(t, err)
	_, err = node.IssueEntryJWTSVID(ctx, request)
	require.Equal(t, codes.PermissionDenied, status.Code(err), err)
	require.ErrorContains(t, err, issuer.String()+", who wrote entry "+id+", may not issue")
	_, err = c.Entries().UpdateEntry(ctx, &ententev1.UpdateEntryRequest{ // the administrator permits it
		Entry: &ententev1.Entry{Id: id, Hint: "x"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"hint"}},
	})
	require.NoError(t, err)
	_, err = node.IssueEntryJWTSVID(ctx, request)
	require.NoError(t, err)
}

// TestSDS reads certificates and validation contexts as Envoy does, as the state of the world and as differences.
func TestSDS(t *testing.T) {
	_, c := cluster(t)
	r := configured(t, token(t, c, "node-1"))
	id := "spiffe://" + home + "/web"
	web := entry(t, c, &ententev1.Entry{Agent: "node-1", SpiffeId: id, Selectors: []string{own()}})
	r.start(t)
	ctx := context1(t)
	service := secret.NewSecretDiscoveryServiceClient(dial(t, r))
	const certificateType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

	stream, err := service.StreamSecrets(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&discovery.DiscoveryRequest{
		Node: &core.Node{Id: "envoy"}, TypeUrl: certificateType, ResourceNames: []string{"default", "ROOTCA", "ALL", id,
			"spiffe://" + home, "spiffe://" + home + "/none"},
	}))
	first, err := stream.Recv()
	require.NoError(t, err)
	require.Len(t, first.GetResources(), 5)
	secrets := map[string]*tlsv3.Secret{}
	for _, resource := range first.GetResources() {
		s := &tlsv3.Secret{}
		require.NoError(t, resource.UnmarshalTo(s))
		require.NoError(t, s.ValidateAll())
		secrets[s.GetName()] = s
	}
	for _, name := range []string{"default", id} {
		pair := secrets[name].GetTlsCertificate()
		_, err := tls.X509KeyPair(pair.GetCertificateChain().GetInlineBytes(), pair.GetPrivateKey().GetInlineBytes())
		require.NoError(t, err, name)
	}
	for _, name := range []string{"ROOTCA", "ALL", "spiffe://" + home} {
		validator := secrets[name].GetValidationContext().GetCustomValidatorConfig()
		require.Equal(t, "envoy.tls.cert_validator.spiffe", validator.GetName())
		config := &tlsv3.SPIFFECertValidatorConfig{}
		require.NoError(t, validator.GetTypedConfig().UnmarshalTo(config))
		require.NoError(t, config.ValidateAll())
		require.Equal(t, home, config.GetTrustDomains()[0].GetName())
	}
	require.NoError(t, stream.Send(&discovery.DiscoveryRequest{ // acknowledges
		TypeUrl: certificateType, VersionInfo: first.GetVersionInfo(), ResponseNonce: first.GetNonce(),
		ResourceNames: []string{"default", "ROOTCA", "ALL", id, "spiffe://" + home, "spiffe://" + home + "/none"},
	}))

	delta, err := service.DeltaSecrets(ctx)
	require.NoError(t, err)
	require.NoError(t, delta.Send(&discovery.DeltaDiscoveryRequest{
		TypeUrl: certificateType, ResourceNamesSubscribe: []string{"default", "ROOTCA"},
	}))
	whole, err := delta.Recv()
	require.NoError(t, err)
	require.Len(t, whole.GetResources(), 2)
	require.NoError(t, delta.Send(&discovery.DeltaDiscoveryRequest{
		TypeUrl: certificateType, ResponseNonce: whole.GetNonce(),
	}))

	// A request with too many names ends its stream before anything is done for one of them.
	many := make([]string, 1025)
	versions := map[string]string{}
	for i := range many {
		many[i] = fmt.Sprint("n", i)
		versions[many[i]] = "1"
	}
	for what, m := range map[string]*discovery.DeltaDiscoveryRequest{
		"subscribed":       {ResourceNamesSubscribe: many},
		"unsubscribed":     {ResourceNamesUnsubscribe: many},
		"initial versions": {InitialResourceVersions: versions},
		"one name again":   {ResourceNamesSubscribe: slices.Repeat([]string{"default"}, len(many))},
	} {
		excessive, err := service.DeltaSecrets(ctx)
		require.NoError(t, err)
		require.NoError(t, excessive.Send(m))
		_, err = excessive.Recv()
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%s: %v", what, err)
	}

	// A new certificate reaches both; as a difference without the validation context, which has not changed.
	_, err = c.Entries().UpdateEntry(ctx, &ententev1.UpdateEntryRequest{
		Entry:      &ententev1.Entry{Id: web.GetId(), DnsNames: []string{"web.example.org"}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"dns_names"}},
	})
	require.NoError(t, err)
	second, err := stream.Recv()
	require.NoError(t, err)
	require.Len(t, second.GetResources(), 2, "default, and the same one by its ID")
	require.NotEqual(t, first.GetVersionInfo(), second.GetVersionInfo())
	change, err := delta.Recv()
	require.NoError(t, err)
	require.Len(t, change.GetResources(), 1)
	require.Equal(t, "default", change.GetResources()[0].GetName())

	// Without the entry both streams end.
	_, err = c.Entries().DeleteEntry(ctx, &ententev1.DeleteEntryRequest{Id: web.GetId()})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.PermissionDenied, status.Code(err), err)
	_, err = delta.Recv()
	require.Equal(t, codes.PermissionDenied, status.Code(err), err)
}

func TestHealth(t *testing.T) {
	_, c := cluster(t)
	r := configured(t, token(t, c, "node-1"))
	r.start(t)
	h, err := agent.ReadHealth(context1(t), r.cfg.AdminSocket)
	require.NoError(t, err)
	require.True(t, h.Ready)
	require.Equal(t, "spiffe://"+home+"/entente/agent/node-1", h.SPIFFEID)
	get := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", r.cfg.AdminSocket)
	}}}
	answer, err := get.Get("http://agent/metrics")
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "entente_agent_entries 0")
	info, err := os.Stat(r.socket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o777), info.Mode().Perm())
	info, err = os.Stat(r.cfg.AdminSocket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}
