// Command otlpdev is the receiver of the OpenTelemetry collector, to test with. It prints its address, and then each
// span that it receives as a line of JSON. It ends with its standard input.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/configgrpc"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "otlpdev:", err)
		os.Exit(1)
	}
}

func run() error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	factory := otlpreceiver.NewFactory()
	cfg := factory.CreateDefaultConfig().(*otlpreceiver.Config)
	server := configgrpc.NewDefaultServerConfig()
	server.NetAddr.Endpoint, server.NetAddr.Transport = address, "tcp"
	cfg.Protocols.GRPC = configoptional.Some(server)
	cfg.Protocols.HTTP = configoptional.None[otlpreceiver.HTTPConfig]()
	sink, err := consumer.NewTraces(print(os.Stdout))
	if err != nil {
		return err
	}
	settings := receiver.Settings{
		ID: component.NewID(factory.Type()), TelemetrySettings: componenttest.NewNopTelemetrySettings(),
	}
	ctx := context.Background()
	r, err := factory.CreateTraces(ctx, settings, cfg, sink)
	if err != nil {
		return err
	}
	if err := r.Start(ctx, componenttest.NewNopHost()); err != nil {
		return err
	}
	fmt.Println(address)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return r.Shutdown(ctx)
}

// freeAddress returns an address on which nothing listens now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// spanLine is one span.
type spanLine struct {
	Trace      string         `json:"trace"`
	Span       string         `json:"span"`
	Parent     string         `json:"parent"`
	Name       string         `json:"name"`
	Status     string         `json:"status"`
	Message    string         `json:"message"`
	Resource   map[string]any `json:"resource"`
	Attributes map[string]any `json:"attributes"`
	Links      []string       `json:"links"` // traces
}

// print returns a consumer that writes spans as lines.
func print(to io.Writer) func(context.Context, ptrace.Traces) error {
	var mu sync.Mutex
	return func(_ context.Context, traces ptrace.Traces) error {
		mu.Lock()
		defer mu.Unlock()
		out := bufio.NewWriter(to)
		encoder := json.NewEncoder(out)
		for _, of := range traces.ResourceSpans().All() {
			for _, scope := range of.ScopeSpans().All() {
				for _, s := range scope.Spans().All() {
					if err := encoder.Encode(lineOf(of.Resource().Attributes(), s)); err != nil {
						return err
					}
				}
			}
		}
		return out.Flush()
	}
}

func lineOf(resource pcommon.Map, s ptrace.Span) spanLine {
	trace, id, parent := s.TraceID(), s.SpanID(), s.ParentSpanID()
	line := spanLine{
		Trace: hex.EncodeToString(trace[:]), Span: hex.EncodeToString(id[:]), Parent: hex.EncodeToString(parent[:]),
		Name: s.Name(), Status: s.Status().Code().String(), Message: s.Status().Message(),
		Resource: resource.AsRaw(), Attributes: s.Attributes().AsRaw(),
	}
	for _, l := range s.Links().All() {
		linked := l.TraceID()
		line.Links = append(line.Links, hex.EncodeToString(linked[:]))
	}
	return line
}
