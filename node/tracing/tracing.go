// Package tracing exports the traces of a member to an OpenTelemetry collector, by OTLP over gRPC.
//
// Spans come from the gRPC servers and clients of a member ([Exporter.ServerOptions], [Exporter.DialOption]: each call
// with one answer is a span, streams are none) and from the rooms, by package span. They wait in a queue of [QueueSize]
// spans and are sent in the background. A collector that is slow or gone costs spans, which are counted, and delays
// nothing.
//
// Whether a trace is recorded follows from its ID alone: the same part of all traces on every member of every cluster
// with the same ratio. Only members pass the ID of a trace on: the call of any other caller begins a trace with an ID
// of its own, which links to that of the caller, so that no caller decides what is recorded.
package tracing

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/ententehq/entente/internal/span"
)

// Config configures an [Exporter].
type Config struct {
	// Address is the host and port of the collector.
	Address string
	// Plain is set for a collector on the loopback interface without TLS.
	Plain bool
	// Roots verify the collector. If nil, the roots of the system do.
	Roots *x509.CertPool
	// Authorization returns the value of the header authorization. It may be nil. It is called for each export, and the
	// value is a secret.
	Authorization func() (string, error)
	// Ratio is the part of all traces that is recorded, from 0 to 1.
	Ratio float64
	// Cluster, Member and Version identify the member.
	Cluster, Member, Version string
	Logger                   hclog.Logger
	Registerer               prometheus.Registerer
}

const (
	// QueueSize is how many spans wait for the collector. A span takes about one KiB.
	QueueSize = 2048
	// exportTimeout bounds one export.
	exportTimeout = 10 * time.Second
	// stopTimeout bounds the last export, while the member stops.
	stopTimeout = time.Second
	// maxAttributes and maxValue bound a span.
	maxAttributes, maxValue = 32, 1024
)

// Exporter records spans and exports them.
type Exporter struct {
	provider   *sdktrace.TracerProvider
	propagator propagation.TextMapPropagator
	abandon    context.CancelFunc // ends what is being exported
}

// Start returns an exporter. It connects in the background.
func Start(cfg Config) (*Exporter, error) {
	options := []otlptracegrpc.Option{
		otlptracegrpc.WithEndpoint(cfg.Address), otlptracegrpc.WithTimeout(exportTimeout),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: time.Second, MaxInterval: 5 * time.Second, MaxElapsedTime: exportTimeout,
		}),
	}
	if cfg.Plain {
		options = append(options, otlptracegrpc.WithInsecure())
	} else {
		options = append(options, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(&tls.Config{
			RootCAs: cfg.Roots, MinVersion: tls.VersionTLS13,
		})))
	}
	if cfg.Authorization != nil {
		options = append(options, otlptracegrpc.WithDialOption(
			grpc.WithPerRPCCredentials(authorization{read: cfg.Authorization, plain: cfg.Plain})))
	}
	client, err := otlptrace.New(context.Background(), otlptracegrpc.NewClient(options...))
	if err != nil {
		return nil, fmt.Errorf("prepare the export of traces to %s: %w", cfg.Address, err)
	}
	counted, err := newCounted(client, cfg)
	if err != nil {
		return nil, err
	}
	limits := sdktrace.NewSpanLimits()
	limits.AttributeCountLimit, limits.AttributeValueLengthLimit = maxAttributes, maxValue
	return &Exporter{
		abandon: counted.abandon,
		provider: sdktrace.NewTracerProvider(
			sdktrace.WithResource(resource.NewSchemaless(
				attribute.String("service.name", "entente"), attribute.String("service.namespace", cfg.Cluster),
				attribute.String("service.instance.id", cfg.Member), attribute.String("service.version", cfg.Version),
			)),
			sdktrace.WithSampler(sdktrace.TraceIDRatioBased(cfg.Ratio)),
			sdktrace.WithIDGenerator(ids{}),
			sdktrace.WithRawSpanLimits(limits),
			sdktrace.WithSpanProcessor(counted.ended(sdktrace.NewBatchSpanProcessor(counted,
				sdktrace.WithMaxQueueSize(QueueSize), sdktrace.WithExportTimeout(exportTimeout)))),
		),
		propagator: propagation.TraceContext{},
	}, nil
}

// Tracer returns the tracer for [span.With].
func (e *Exporter) Tracer() trace.Tracer { return e.provider.Tracer(span.Scope) }

// Stop sends the spans that wait, for one second at the most.
func (e *Exporter) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	_ = e.provider.Shutdown(ctx) // the spans that the collector does not take are counted
	e.abandon()
	return nil
}

// ServerOptions make a span of each call with one answer that a gRPC server receives, and give the tracer to streams.
// A server for members goes on with the traces of its callers; any other links to them.
func (e *Exporter) ServerOptions(members bool) []grpc.ServerOption {
	spans := e.options()
	if !members {
		spans = append(spans, otelgrpc.WithPublicEndpoint())
	}
	return []grpc.ServerOption{
		grpc.StatsHandler(otelgrpc.NewServerHandler(spans...)),
		grpc.ChainStreamInterceptor(func(
			service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler,
		) error {
			return handler(service, traced{stream, span.With(stream.Context(), e.Tracer())})
		}),
	}
}

// traced is a stream whose context has the tracer.
type traced struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements [grpc.ServerStream].
func (t traced) Context() context.Context { return t.ctx }

// DialOption makes a span of each call with one answer to a member of the cluster, and passes its trace on.
func (e *Exporter) DialOption() grpc.DialOption {
	return grpc.WithStatsHandler(otelgrpc.NewClientHandler(e.options()...))
}

func (e *Exporter) options() []otelgrpc.Option {
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(e.provider), otelgrpc.WithPropagators(e.propagator),
		otelgrpc.WithMeterProvider(noopmetric.NewMeterProvider()),
		otelgrpc.WithFilter(func(call *stats.RPCTagInfo) bool { return unary()[call.FullMethodName] }),
	}
}

const heartbeat = "entente.v1.MemberService.Heartbeat"

// unary returns the names of the known methods with one request and one answer. A stream would be a span of hours, and
// a name that is not known is the text of a caller. Heartbeats of members would be most of all spans.
var unary = sync.OnceValue(func() map[string]bool {
	names := make(map[string]bool)
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for k := range service.Methods().Len() {
				m := service.Methods().Get(k)
				if !m.IsStreamingClient() && !m.IsStreamingServer() && m.FullName() != heartbeat {
					names[fmt.Sprintf("/%s/%s", service.FullName(), m.Name())] = true
				}
			}
		}
		return true
	})
	return names
})

// ids generates the IDs of traces and spans: those of a bundle's publication are derived, all others random.
type ids struct{}

// NewIDs implements [sdktrace.IDGenerator].
func (ids) NewIDs(ctx context.Context) (t trace.TraceID, s trace.SpanID) {
	if t, s, ok := span.Publication(ctx); ok {
		return t, s
	}
	_, _ = rand.Read(t[:]) // it never fails: crypto/rand ends the program instead
	_, _ = rand.Read(s[:])
	return t, s
}

// NewSpanID implements [sdktrace.IDGenerator].
func (ids) NewSpanID(context.Context, trace.TraceID) (s trace.SpanID) {
	_, _ = rand.Read(s[:])
	return s
}

// authorization adds the header to each export.
type authorization struct {
	read  func() (string, error)
	plain bool
}

// GetRequestMetadata implements [credentials.PerRPCCredentials].
func (a authorization) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	value, err := a.read()
	if err != nil {
		return nil, fmt.Errorf("telemetry.traces.authorization: %w", err)
	}
	return map[string]string{"authorization": value}, nil
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials].
func (a authorization) RequireTransportSecurity() bool { return !a.plain }

// counted counts what becomes of the spans.
type counted struct {
	sdktrace.SpanExporter
	logger  hclog.Logger
	address string
	spans   *prometheus.CounterVec
	waiting atomic.Int64 // spans that ended and that no export has taken
	stopped context.Context
	abandon context.CancelFunc
}

func newCounted(to sdktrace.SpanExporter, cfg Config) (*counted, error) {
	c := &counted{SpanExporter: to, logger: cfg.Logger, address: cfg.Address, spans: prometheus.NewCounterVec(
		prometheus.CounterOpts{
			Name: "entente_tracing_spans_total",
			Help: "Recorded spans, by whether the collector took them.",
		}, []string{"result"}),
	}
	c.stopped, c.abandon = context.WithCancel(context.Background())
	for _, r := range []string{"exported", "lost"} {
		c.spans.WithLabelValues(r)
	}
	if c.logger == nil {
		c.logger = hclog.NewNullLogger()
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(c.spans); err != nil {
			return nil, fmt.Errorf("register the metrics of traces: %w", err)
		}
	}
	return c, nil
}

// ExportSpans implements [sdktrace.SpanExporter].
func (c *counted) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	c.waiting.Add(-int64(len(spans)))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.stopped, cancel)()
	err := c.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		c.spans.WithLabelValues("exported").Add(float64(len(spans)))
		return nil
	}
	c.spans.WithLabelValues("lost").Add(float64(len(spans)))
	c.logger.Warn("spans are lost: the collector of traces does not take them", "address", c.address,
		"spans", len(spans), "error", strings.TrimSpace(err.Error()))
	return nil // it is logged, and the global handler of OpenTelemetry would log it again
}

// ended returns a processor that drops and counts spans for which the queue of next has no room.
func (c *counted) ended(next sdktrace.SpanProcessor) sdktrace.SpanProcessor {
	return bounded{SpanProcessor: next, counted: c}
}

type bounded struct {
	sdktrace.SpanProcessor
	counted *counted
}

// OnEnd implements [sdktrace.SpanProcessor].
func (b bounded) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if b.counted.waiting.Add(1) > QueueSize {
		b.counted.waiting.Add(-1)
		b.counted.spans.WithLabelValues("lost").Inc()
		return
	}
	b.SpanProcessor.OnEnd(s)
}
