package access_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/admission"
	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
)

// refusable are the credentials of a caller that count its refused calls.
type refusable struct {
	as
	refused *atomic.Int32
}

type refusableInfo struct {
	asInfo
	refused *atomic.Int32
}

func (i refusableInfo) Refused() { i.refused.Add(1) }

func (r refusable) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := r.as.ServerHandshake(c)
	return c, refusableInfo{info.(asInfo), r.refused}, err
}
func (r refusable) Clone() credentials.TransportCredentials { return r }

// unfinished is one connection on which requests begin and never end.
type unfinished struct {
	t       *testing.T
	framer  *http2.Framer
	headers bytes.Buffer
	encoder *hpack.Encoder
	next    uint32
}

// open connects to a server without gRPC's client, which waits for windows that a hostile caller does not need.
func open(t *testing.T, server *grpc.Server) *unfinished {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := listener.DialContext(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		server.Stop()
		require.NoError(t, <-served)
	})
	_, err = conn.Write([]byte(http2.ClientPreface))
	require.NoError(t, err)
	u := &unfinished{t: t, framer: http2.NewFramer(conn, conn), next: 1}
	u.framer.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	u.encoder = hpack.NewEncoder(&u.headers)
	require.NoError(t, u.framer.WriteSettings())
	return u
}

// begin sends the headers of a call, and the beginning of a message of 2 MB.
func (u *unfinished) begin(method string) {
	u.t.Helper()
	u.request(method)
	message := binary.BigEndian.AppendUint32([]byte{0}, 2<<20)
	require.NoError(u.t, u.framer.WriteData(u.next, false, append(message, "begun"...)))
	u.next += 2
}

// request sends the headers of a call.
func (u *unfinished) request(method string) {
	u.t.Helper()
	u.headers.Reset()
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		require.NoError(u.t, u.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	require.NoError(u.t, u.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: u.next, BlockFragment: u.headers.Bytes(), EndHeaders: true,
	}))
}

// watch sends the headers of a call and its only message, which is empty.
func (u *unfinished) watch(method string) {
	u.t.Helper()
	u.request(method)
	require.NoError(u.t, u.framer.WriteData(u.next, true, make([]byte, 5)))
	u.next += 2
}

// outcome reads what the server sends until n calls have ended. It returns the number of calls by gRPC status, and how
// many bytes the server offered to receive for single calls.
func (u *unfinished) outcome(n int) (statuses map[string]int, window uint32) {
	u.t.Helper()
	statuses = make(map[string]int)
	for ended := 0; ended < n; {
		frame, err := u.framer.ReadFrame()
		require.NoError(u.t, err)
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				if field.Name == "grpc-status" {
					statuses[field.Value]++
					ended++
				}
			}
		case *http2.WindowUpdateFrame:
			if f.StreamID != 0 {
				window += f.Increment
			}
		}
	}
	return statuses, window
}

// waiting accepts streams of other clusters, and waits for their first message.
type waiting struct {
	v1.UnimplementedPeerServiceServer
}

func (waiting) Exchange(s v1.PeerService_ExchangeServer) error {
	_, err := s.Recv()
	return err
}

func (h *harness) server(creds credentials.TransportCredentials) *grpc.Server {
	server := grpc.NewServer(append(h.guard.ServerOptions(), grpc.Creds(creds))...)
	h.guard.RegisterServices(server)
	v1.RegisterDomainServiceServer(server, h.domains)
	v1.RegisterBundleServiceServer(server, h.domains)
	v1.RegisterSVIDServiceServer(server, h.domains)
	v1.RegisterClusterServiceServer(server, h.domains)
	v1.RegisterPeerServiceServer(server, waiting{})
	return server
}

func TestCallsWithoutAGrantAreRefusedUnread(t *testing.T) {
	const calls = 1000
	permissionDenied, unimplemented := "7", "12"
	xdsStream := "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
	eu2 := access.MemberCaller("eu-2")
	for name, c := range map[string]struct {
		caller access.Caller
		method string
		status string
	}{
		"a unary call":             {ci, v1.DomainService_CreateDomain_FullMethodName, permissionDenied},
		"a watch":                  {ci, v1.BundleService_WatchBundles_FullMethodName, permissionDenied},
		"an upload":                {ci, v1.ClusterService_RestoreSnapshot_FullMethodName, permissionDenied},
		"a signature":              {ci, v1.SVIDService_IssueX509SVIDs_FullMethodName, permissionDenied},
		"a peer stream":            {ci, v1.PeerService_Exchange_FullMethodName, permissionDenied},
		"an xDS stream":            {ci, xdsStream, permissionDenied},
		"a method that is not one": {ci, "/entente.v1.Unknown/Call", unimplemented},
		"a method for members":     {root, v1.MemberService_Heartbeat_FullMethodName, unimplemented},
		"a member":                 {eu2, v1.DomainService_CreateDomain_FullMethodName, permissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			h := build(t)
			var refused atomic.Int32
			u := open(t, h.server(refusable{as{insecure.NewCredentials(), c.caller}, &refused}))
			begun := make(chan struct{})
			go func() {
				defer close(begun)
				for range calls {
					u.begin(c.method)
				}
			}()
			statuses, window := u.outcome(calls)
			<-begun
			require.Equal(t, map[string]int{c.status: calls}, statuses)
			require.Zero(t, window, "no message was read")
			require.EqualValues(t, calls, refused.Load())
			require.Zero(t, h.created.Load())
		})
	}
}

func TestUnfinishedMessagesEnd(t *testing.T) {
	deadlineExceeded := "4"
	for name, method := range map[string]string{
		"a unary call": v1.DomainService_CreateDomain_FullMethodName,
		"a watch":      v1.BundleService_WatchBundles_FullMethodName,
		"an upload":    v1.ClusterService_RestoreSnapshot_FullMethodName,
	} {
		t.Run(name, func(t *testing.T) {
			h := buildWith(t, func(c *access.GuardConfig) { c.ReceiveTimeout = 10 * time.Millisecond })
			u := open(t, h.server(as{insecure.NewCredentials(), root}))
			u.begin(method)
			statuses, _ := u.outcome(1)
			require.Equal(t, map[string]int{deadlineExceeded: 1}, statuses)
			n, err := testutil.GatherAndCount(h.metrics, "entente_access_denials_total")
			require.NoError(t, err)
			require.Positive(t, n)
		})
	}
}

func TestEarlyRefusalsNameTheMissingGrant(t *testing.T) {
	h := build(t)
	_, err := v1.NewSVIDServiceClient(h.dial(t, ci)).IssueX509SVID(t.Context(),
		&v1.IssueX509SVIDRequest{SpiffeId: "spiffe://pay.test/web"})
	require.EqualError(t, err, "rpc error: code = PermissionDenied desc = spiffe://eu.test/ci may not call "+
		"SVIDService/IssueX509SVID: it needs the role issuer or admin, and has none. To allow it, an administrator "+
		"runs: entente access grant issuer --spiffe-id spiffe://eu.test/ci --domain TRUST_DOMAIN --path PATH")
	require.NotEmpty(t, status.Convert(err).Details(), "the reason")
	require.Equal(t, codes.PermissionDenied, status.Code(err))
}

// One caller cannot have more unfinished calls under way than its share, however many connections it has.
func TestUnfinishedCallsCountTowardsTheShareOfTheirCaller(t *testing.T) {
	h := build(t)
	_, err := v1.NewAccessServiceClient(h.dial(t, root)).GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{
		Role: grant.Operator, SpiffeId: "spiffe://eu.test/ci",
	}})
	require.NoError(t, err)
	share := admission.Capacities(runtime.GOMAXPROCS(0))[admission.Writes].Share
	const more = 7
	u := open(t, h.server(as{insecure.NewCredentials(), ci}))
	begun := make(chan struct{})
	go func() {
		defer close(begun)
		for range share + more {
			u.begin(v1.DomainService_CreateDomain_FullMethodName)
		}
	}()
	statuses, _ := u.outcome(more)
	<-begun
	resourceExhausted := "8"
	require.Equal(t, map[string]int{resourceExhausted: more}, statuses)
	_, err = v1.NewDomainServiceClient(h.dial(t, ci)).CreateDomain(t.Context(), create("pay.test"))
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "over another connection")
	_, err = v1.NewDomainServiceClient(h.dial(t, ci)).ListDomains(t.Context(), &v1.ListDomainsRequest{})
	require.NoError(t, err, "another kind of calls")
	_, err = v1.NewDomainServiceClient(h.dial(t, root)).CreateDomain(t.Context(), create("pay.test"))
	require.NoError(t, err, "the admin socket is exempt")
}

// A cluster has a few streams to another one. Its members cannot open more, whatever they send.
func TestStreamsOfAnotherClusterAreBounded(t *testing.T) {
	h := build(t)
	share := admission.Capacities(1)[admission.Peering].Share
	member := access.SVIDCaller(spiffeid.RequireFromString("spiffe://us.test/entente/member/us-1"))
	u := open(t, h.server(as{insecure.NewCredentials(), member}))
	for range share + 1 {
		u.begin(v1.PeerService_Exchange_FullMethodName)
	}
	statuses, _ := u.outcome(1)
	require.Equal(t, map[string]int{"8": 1}, statuses)
}
