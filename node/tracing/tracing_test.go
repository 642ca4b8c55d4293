package tracing

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/span"
)

// sink receives spans by OTLP, and keeps what the header authorization was.
type sink struct {
	collector.UnimplementedTraceServiceServer
	names chan string
	with  chan []string
}

// Export implements the service of the protocol.
func (s *sink) Export(
	ctx context.Context, r *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	s.with <- md.Get("authorization")
	for _, of := range r.GetResourceSpans() {
		for _, scope := range of.GetScopeSpans() {
			for _, received := range scope.GetSpans() {
				s.names <- received.GetName()
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// serve serves a sink with TLS, and returns its address and the roots that verify it.
func serve(t *testing.T) (*sink, string, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	root, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(root)
	s := &sink{names: make(chan string, 16), with: make(chan []string, 16)}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	})))
	collector.RegisterTraceServiceServer(server, s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return s, l.Addr().String(), roots
}

func TestExport(t *testing.T) {
	s, address, roots := serve(t)
	registry := prometheus.NewPedanticRegistry()
	e, err := Start(Config{
		Address: address, Roots: roots, Ratio: 1, Cluster: "eu", Member: "eu-1", Registerer: registry,
		Authorization: func() (string, error) { return "Bearer secret", nil },
	})
	require.NoError(t, err)
	_, task := span.Start(span.With(t.Context(), e.Tracer()), "task")
	span.End(task, nil)
	require.NoError(t, e.Stop())
	require.Equal(t, []string{"Bearer secret"}, <-s.with)
	require.Equal(t, "task", <-s.names)
	require.NoError(t, testutil.GatherAndCompare(registry, expected(1, 0), "entente_tracing_spans_total"))
}

// TestCollectorIsVerified: a collector that the roots do not verify gets nothing, and the spans are counted as lost.
func TestCollectorIsVerified(t *testing.T) {
	s, address, _ := serve(t)
	registry := prometheus.NewPedanticRegistry()
	e, err := Start(Config{
		Address: address, Roots: x509.NewCertPool(), Ratio: 1, Registerer: registry,
		Authorization: func() (string, error) { return "Bearer secret", nil },
	})
	require.NoError(t, err)
	_, task := span.Start(span.With(t.Context(), e.Tracer()), "task")
	span.End(task, nil)
	require.NoError(t, e.Stop(), "a member stops without its collector")
	require.Eventually(t, func() bool {
		return testutil.GatherAndCompare(registry, expected(0, 1), "entente_tracing_spans_total") == nil
	}, time.Minute, 10*time.Millisecond)
	require.Empty(t, s.with)
}

// TestRatioDecidesByTrace: members and clusters with one ratio record the same traces, whatever a caller wishes.
func TestRatioDecidesByTrace(t *testing.T) {
	start := func() trace.Tracer {
		e, err := Start(Config{Address: "127.0.0.1:1", Plain: true, Ratio: 0.5})
		require.NoError(t, err)
		t.Cleanup(func() { _ = e.Stop() })
		return e.Tracer()
	}
	here, there := start(), start()
	recorded := 0
	for sequence := range uint64(100) {
		b := span.Bundle{TrustDomain: "eu.example.org", Sequence: sequence}
		_, stored := span.StartOn(span.With(t.Context(), there), b, "store bundle")
		published := span.Publish(span.With(t.Context(), here), b)
		require.Equal(t, published.SpanContext().TraceID(), stored.SpanContext().TraceID())
		require.Equal(t, published.SpanContext().IsSampled(), stored.SpanContext().IsSampled())
		if stored.SpanContext().IsSampled() {
			recorded++
		}
	}
	require.InDelta(t, 50, recorded, 25)
	never, err := Start(Config{Address: "127.0.0.1:1", Plain: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = never.Stop() })
	wish := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled, Remote: true,
	})
	_, s := never.Tracer().Start(trace.ContextWithRemoteSpanContext(t.Context(), wish), "call")
	require.False(t, s.SpanContext().IsSampled())
}

// TestCallersChooseNoTrace: the ID of a trace that a caller sends, and its wish that it be recorded, count only on the
// server for members.
func TestCallersChooseNoTrace(t *testing.T) {
	e, err := Start(Config{Address: "127.0.0.1:1", Plain: true, Ratio: 0.5})
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Stop() })
	// The sampler records a trace by the last eight bytes of its ID: the first of these always, the second never.
	always, never := trace.TraceID{1}, trace.TraceID{1, 15: 0xff, 8: 0xff}
	for _, chosen := range []trace.TraceID{always, never} {
		for _, members := range []bool{true, false} {
			began := e.called(t, members, chosen)
			require.Equal(t, members, began.TraceID() == chosen)
			if members {
				require.Equal(t, chosen == always, began.IsSampled())
			}
		}
	}
}

// called returns the span of a call with the trace of a caller, on a server with the options of the exporter.
func (e *Exporter) called(t *testing.T, members bool, chosen trace.TraceID) (began trace.SpanContext) {
	t.Helper()
	options := append(e.ServerOptions(members), grpc.ChainUnaryInterceptor(func(
		ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler,
	) (any, error) {
		began = trace.SpanContextFromContext(ctx)
		return &ententev1.ListMembersResponse{}, nil
	}))
	server := grpc.NewServer(options...)
	ententev1.RegisterClusterServiceServer(server, ententev1.UnimplementedClusterServiceServer{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent",
		fmt.Sprintf("00-%s-%s-01", chosen, trace.SpanID{1}))
	_, err = ententev1.NewClusterServiceClient(conn).ListMembers(ctx, &ententev1.ListMembersRequest{})
	require.NoError(t, err)
	require.True(t, began.IsValid())
	return began
}

// TestQueueIsBounded: with a collector that hangs, spans beyond the queue are lost, and nothing waits for it.
func TestQueueIsBounded(t *testing.T) {
	c, err := newCounted(tracetest.NewNoopExporter(), Config{Registerer: prometheus.NewPedanticRegistry()})
	require.NoError(t, err)
	taken := &processor{}
	bounded := c.ended(taken)
	s := tracetest.SpanStub{SpanContext: trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	})}.Snapshot()
	for range QueueSize + 3 {
		bounded.OnEnd(s)
	}
	require.Equal(t, QueueSize, taken.spans)
	require.InDelta(t, 3, testutil.ToFloat64(c.spans.WithLabelValues("lost")), 0)
	require.NoError(t, c.ExportSpans(t.Context(), taken.batch(10)))
	bounded.OnEnd(s)
	require.Equal(t, QueueSize+1, taken.spans, "what was exported makes room")
}

// TestFailedExportIsCounted: the member goes on, and the error is not passed to a global handler.
func TestFailedExportIsCounted(t *testing.T) {
	c, err := newCounted(failing{}, Config{})
	require.NoError(t, err)
	taken := &processor{}
	require.NoError(t, c.ExportSpans(t.Context(), taken.batch(2)))
	require.InDelta(t, 2, testutil.ToFloat64(c.spans.WithLabelValues("lost")), 0)
}

func TestOnlyKnownCallsWithOneAnswerAreSpans(t *testing.T) {
	for method, is := range map[string]bool{
		ententev1.SVIDService_IssueX509SVID_FullMethodName:  true,
		ententev1.StoreService_Propose_FullMethodName:       true,
		ententev1.PeerService_Exchange_FullMethodName:       false,
		ententev1.BundleService_WatchBundles_FullMethodName: false,
		ententev1.MemberService_Heartbeat_FullMethodName:    false,
		"/entente.v1.SVIDService/Unknown":                   false,
	} {
		require.Equal(t, is, unary()[method], method)
	}
}

// processor counts the spans that it gets.
type processor struct {
	bounded
	spans int
}

func (p *processor) OnEnd(sdktrace.ReadOnlySpan) { p.spans++ }

func (p *processor) batch(n int) []sdktrace.ReadOnlySpan { return make([]sdktrace.ReadOnlySpan, n) }

// failing is a collector that takes nothing.
type failing struct{ sdktrace.SpanExporter }

func (failing) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return errors.New("full") }

func expected(exported, lost int) io.Reader {
	return strings.NewReader(fmt.Sprintf(`
# HELP entente_tracing_spans_total Recorded spans, by whether the collector took them.
# TYPE entente_tracing_spans_total counter
entente_tracing_spans_total{result="exported"} %d
entente_tracing_spans_total{result="lost"} %d
`, exported, lost))
}
