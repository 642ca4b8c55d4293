// Package span starts the spans of OpenTelemetry traces in the rooms of a member. It uses only the API of
// OpenTelemetry: package node/tracing exports the spans.
//
// A call has the tracer of the span that its server started, a task in the background that of [With]. Without either,
// and with traces off, a span costs some nanoseconds and has no effect.
//
// All spans on one version of a bundle are in one trace, on each member of every cluster that handles the version,
// whether it came by a stream or from an endpoint: the ID of the trace is derived from the version by [StartOn]. So no
// message between clusters carries a trace.
package span

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

type tracerKey struct{}

// With returns a context for tasks in the background, with the tracer of their spans.
func With(ctx context.Context, tracer trace.Tracer) context.Context {
	return context.WithValue(ctx, tracerKey{}, tracer)
}

// Start starts a span below that of ctx, and returns the context of the span. The caller ends it by [End]. An attribute
// never holds a secret.
func Start(ctx context.Context, name string, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	return tracerOf(ctx).Start(ctx, name, trace.WithAttributes(attributes...))
}

// End ends a span. If err is not nil, the span has failed, and err is its description.
func End(s trace.Span, err error) {
	if err != nil {
		s.SetStatus(codes.Error, err.Error())
	}
	s.End()
}

var none = noop.NewTracerProvider().Tracer("")

func tracerOf(ctx context.Context) trace.Tracer {
	if s := trace.SpanFromContext(ctx); s.SpanContext().IsValid() && !s.SpanContext().IsRemote() {
		return s.TracerProvider().Tracer(Scope)
	}
	if t, ok := ctx.Value(tracerKey{}).(trace.Tracer); ok {
		return t
	}
	return none
}

// Scope is the instrumentation scope of the spans.
const Scope = "github.com/ententehq/entente"

// Bundle identifies one version of a trust domain's bundle: by its sequence, or by its digest if it has none.
type Bundle struct {
	TrustDomain string
	Sequence    uint64
	Unordered   bool // it has no sequence
	Digest      [32]byte
}

// TrustDomain is the attribute of the trust domain that a span is about.
func TrustDomain(name string) attribute.KeyValue {
	return attribute.String("entente.trust_domain", name)
}

func (b Bundle) attributes() []attribute.KeyValue {
	if b.Unordered {
		return []attribute.KeyValue{
			TrustDomain(b.TrustDomain), attribute.String("entente.bundle.digest", hex.EncodeToString(b.Digest[:])),
		}
	}
	//nolint:gosec // sequences are the milliseconds of a clock at most
	return []attribute.KeyValue{
		TrustDomain(b.TrustDomain), attribute.Int64("entente.bundle.sequence", int64(b.Sequence)),
	}
}

// ids returns the trace of a version, and the span in it of its publication.
func (b Bundle) ids() (t trace.TraceID, s trace.SpanID) {
	version := append([]byte("entente bundle\x00"), b.TrustDomain...)
	if b.Unordered {
		version = append(append(version, " digest "...), b.Digest[:]...)
	} else {
		version = binary.BigEndian.AppendUint64(append(version, " sequence "...), b.Sequence)
	}
	sum := sha256.Sum256(version)
	copy(t[:], sum[:])
	copy(s[:], sum[len(t):])
	return t, s
}

// StartOn starts a span on a version of a bundle, below its publication. It links to the span of ctx.
func StartOn(
	ctx context.Context, b Bundle, name string, attributes ...attribute.KeyValue,
) (context.Context, trace.Span) {
	tracer := tracerOf(ctx)
	if tracer == none {
		return ctx, noop.Span{}
	}
	link := trace.LinkFromContext(ctx)
	t, s := b.ids()
	ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: t, SpanID: s, Remote: true,
	}))
	return tracer.Start(ctx, name, options(link, append(b.attributes(), attributes...))...)
}

func options(link trace.Link, attributes []attribute.KeyValue) []trace.SpanStartOption {
	o := []trace.SpanStartOption{trace.WithAttributes(attributes...)}
	if link.SpanContext.IsValid() {
		o = append(o, trace.WithLinks(link))
	}
	return o
}

type publicationKey struct{}

// Publish starts the span of the publication of a version, the first one of its trace. It links to the span of ctx,
// such as that of the transaction that changed the bundle.
func Publish(ctx context.Context, b Bundle) trace.Span {
	tracer := tracerOf(ctx)
	if tracer == none {
		return noop.Span{}
	}
	o := append(options(trace.LinkFromContext(ctx), b.attributes()), trace.WithNewRoot())
	_, s := tracer.Start(context.WithValue(ctx, publicationKey{}, b), "publish bundle", o...)
	return s
}

// Publication returns the IDs of the trace and the span that [Publish] starts; ok is false for other spans.
func Publication(ctx context.Context) (t trace.TraceID, s trace.SpanID, ok bool) {
	b, ok := ctx.Value(publicationKey{}).(Bundle)
	if !ok {
		return t, s, false
	}
	t, s = b.ids()
	return t, s, true
}
