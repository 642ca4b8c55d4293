package span_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/ententehq/entente/internal/span"
)

// recorder returns a tracer whose spans it records, with random IDs but for those of publications.
func recorder() (trace.Tracer, *tracetest.SpanRecorder) {
	r := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r), sdktrace.WithSampler(sdktrace.AlwaysSample()))
	return provider.Tracer("test"), r
}

func TestStart(t *testing.T) {
	tracer, recorded := recorder()
	ctx := span.With(t.Context(), tracer)
	outer, task := span.Start(ctx, "task", span.TrustDomain("eu.example.org"))
	_, step := span.Start(outer, "step")
	span.End(step, errors.New("it failed"))
	span.End(task, nil)

	spans := recorded.Ended()
	require.Len(t, spans, 2)
	require.Equal(t, task.SpanContext().SpanID(), spans[0].Parent().SpanID())
	require.Equal(t, sdktrace.Status{Code: codes.Error, Description: "it failed"}, spans[0].Status())
	require.Equal(t, codes.Unset, spans[1].Status().Code)
	require.Equal(t, "eu.example.org", spans[1].Attributes()[0].Value.AsString())
}

func TestWithoutTracerNothingIsRecorded(t *testing.T) {
	ctx, s := span.Start(t.Context(), "task")
	require.False(t, s.IsRecording())
	span.End(s, errors.New("it failed"))
	_, s = span.StartOn(ctx, span.Bundle{TrustDomain: "eu.example.org"}, "store bundle")
	require.False(t, s.IsRecording())
	require.False(t, span.Publish(ctx, span.Bundle{TrustDomain: "eu.example.org"}).IsRecording())
}

// TestVersionsHaveTraces: what members of any cluster do with one version of a bundle is in one trace, and no two
// versions share one.
func TestVersionsHaveTraces(t *testing.T) {
	of := func(b span.Bundle) trace.TraceID {
		tracer, recorded := recorder()
		_, s := span.StartOn(span.With(t.Context(), tracer), b, "store bundle")
		s.End()
		require.True(t, recorded.Ended()[0].Parent().SpanID().IsValid())
		return s.SpanContext().TraceID()
	}
	third := span.Bundle{TrustDomain: "eu.example.org", Sequence: 3}
	require.Equal(t, of(third), of(span.Bundle{TrustDomain: "eu.example.org", Sequence: 3, Digest: [32]byte{1}}))
	require.Equal(t, "e6990b4e835b165c82258c37fbe8f859", of(third).String(), "as in docs/operating/metrics.md")
	seen := map[trace.TraceID]span.Bundle{}
	for _, b := range []span.Bundle{
		third,
		{TrustDomain: "eu.example.org", Sequence: 4},
		{TrustDomain: "us.example.org", Sequence: 3},
		{TrustDomain: "eu.example.org", Unordered: true},
		{TrustDomain: "eu.example.org", Unordered: true, Digest: [32]byte{1}},
	} {
		other, twice := seen[of(b)]
		require.False(t, twice, "%v and %v", b, other)
		seen[of(b)] = b
	}
}

func TestPublication(t *testing.T) {
	tracer, recorded := recorder()
	ctx, call := span.Start(span.With(t.Context(), tracer), "call")
	span.Publish(ctx, span.Bundle{TrustDomain: "eu.example.org", Sequence: 3}).End()
	published := recorded.Ended()[0]
	require.False(t, published.Parent().IsValid(), "it is the first of its trace")
	require.Equal(t, call.SpanContext().TraceID(), published.Links()[0].SpanContext.TraceID())
	_, _, ok := span.Publication(ctx)
	require.False(t, ok, "other spans have random IDs")
}
