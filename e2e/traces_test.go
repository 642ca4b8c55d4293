package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/devbuild"
	"github.com/ententehq/entente/internal/shorttest"
)

// receivedSpan is a span that the receiver of the OpenTelemetry collector received: a line of e2e/otlpdev.
type receivedSpan struct {
	Trace, Span, Parent, Name, Status, Message string
	Resource, Attributes                       map[string]any
	Links                                      []string
}

func (s receivedSpan) cluster() any { return s.Resource["service.namespace"] }
func (s receivedSpan) member() any  { return s.Resource["service.instance.id"] }

// collector is the receiver of the OpenTelemetry collector, as a process.
type collector struct {
	address string

	mu    sync.Mutex
	spans []receivedSpan
	lines strings.Builder
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	shorttest.Skip(t, "runs the receiver of the OpenTelemetry collector")
	program, err := devbuild.Program{Module: "otlpdev", Package: "."}.Build(t.Context())
	require.NoError(t, err)
	cmd := exec.Command(program)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	require.True(t, lines.Scan(), "the receiver prints its address")
	c := &collector{address: lines.Text()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines.Scan() {
			c.add(lines.Bytes())
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		<-done
		_ = cmd.Wait()
	})
	return c
}

func (c *collector) add(line []byte) {
	var s receivedSpan
	err := json.Unmarshal(line, &s)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines.Write(line)
	if err == nil {
		c.spans = append(c.spans, s)
	}
}

// find returns a span that matches, once there is one.
func (c *collector) find(t *testing.T, what string, match func(receivedSpan) bool) receivedSpan {
	t.Helper()
	var found receivedSpan
	eventually(t, "the collector has "+what, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if i := slices.IndexFunc(c.spans, match); i >= 0 {
			found = c.spans[i]
			return nil
		}
		var names []string
		for _, s := range c.spans {
			names = append(names, fmt.Sprint(s.member(), " ", s.Name))
		}
		slices.Sort(names)
		return fmt.Errorf("none among %d spans: %q", len(names), slices.Compact(names))
	})
	return found
}

// TestTraces: the receiver of the OpenTelemetry collector has the traces of a change that a follower forwards to the
// leader, of an SVID, of a poll, and of a version of a bundle on its way from one cluster to another.
func TestTraces(t *testing.T) {
	traces := startCollector(t)
	form := func(name string, members int) *cluster {
		c := &cluster{t: t, name: name, domain: name + ".example.org", traces: traces.address}
		c.form(members)
		return c
	}
	eu, us := form("eu", 2), form("us", 1)
	peerUp(t, eu, us)

	t.Run("a forwarded change is one trace", func(t *testing.T) {
		leader := eu.leader()
		follower := eu.members[slices.IndexFunc(eu.members, func(p *process) bool { return p != leader })]
		_, err := follower.socket().Domains().CreateDomain(t.Context(), &ententev1.CreateDomainRequest{
			Domain: &ententev1.Domain{TrustDomain: "shop.example.org"},
		})
		require.NoError(t, err)
		call := traces.find(t, "the call", func(s receivedSpan) bool {
			return s.Name == "entente.v1.DomainService/CreateDomain" && s.member() == follower.id
		})
		transaction := traces.find(t, "its transaction", func(s receivedSpan) bool {
			return s.Name == "transaction" && s.Trace == call.Trace && s.member() == follower.id
		})
		require.NotZero(t, transaction.Attributes["entente.revision"])
		proposal := traces.find(t, "what the leader did", func(s receivedSpan) bool {
			return s.Name == "entente.v1.StoreService/Propose" && s.Trace == call.Trace && s.member() == leader.id
		})
		traces.find(t, "the follower's call of the leader", func(s receivedSpan) bool {
			return s.Span == proposal.Parent && s.member() == follower.id
		})
	})
	t.Run("an SVID", func(t *testing.T) {
		issued, err := us.members[0].socket().SVIDs().IssueJWTSVID(t.Context(), &ententev1.IssueJWTSVIDRequest{
			SpiffeId: "spiffe://us.example.org/web", Audience: []string{"db"},
		})
		require.NoError(t, err)
		call := traces.find(t, "the call", func(s receivedSpan) bool {
			return s.Name == "entente.v1.SVIDService/IssueJWTSVID" && s.cluster() == "us"
		})
		signature := traces.find(t, "the signature", func(s receivedSpan) bool {
			return s.Name == "sign jwt-svid" && s.Trace == call.Trace
		})
		require.Equal(t, call.Span, signature.Parent)
		require.Equal(t, "us.example.org", signature.Attributes["entente.trust_domain"])
		traces.mu.Lock()
		defer traces.mu.Unlock()
		require.NotContains(t, traces.lines.String(), issued.GetToken(), "a span holds no secret")
	})
	t.Run("a poll", func(t *testing.T) {
		_, err := us.members[0].socket().Federation().RefreshRelationship(t.Context(),
			&ententev1.RefreshRelationshipRequest{TrustDomain: eu.domain})
		require.NoError(t, err)
		poll := traces.find(t, "the poll", func(s receivedSpan) bool { return s.Name == "poll" && s.cluster() == "us" })
		require.Equal(t, eu.domain, poll.Attributes["entente.trust_domain"])
	})
	t.Run("a bundle's way to a peer is one trace", func(t *testing.T) {
		rotated, err := eu.members[0].socket().Authorities().RotateAuthorities(t.Context(),
			&ententev1.RotateAuthoritiesRequest{TrustDomain: eu.domain, Anchors: true})
		require.NoError(t, err, rotated)
		sent := traces.find(t, "the sending of a version that the peer has acknowledged", func(s receivedSpan) bool {
			return s.Name == "send bundle" && s.cluster() == "eu" && s.Status == "Unset"
		})
		stored := traces.find(t, "that the peer stored it", func(s receivedSpan) bool {
			return s.Name == "store bundle" && s.cluster() == "us" && s.Trace == sent.Trace && s.Status == "Unset"
		})
		published := traces.find(t, "its publication", func(s receivedSpan) bool {
			return s.Name == "publish bundle" && s.cluster() == "eu" && s.Trace == sent.Trace
		})
		require.Equal(t, published.Span, stored.Parent)
		require.Equal(t, published.Span, sent.Parent)
		require.Equal(t, stored.Attributes["entente.bundle.sequence"], published.Attributes["entente.bundle.sequence"])
		require.NotEmpty(t, published.Links, "the trace of the transaction")
		require.Equal(t, us.domain, sent.Attributes["entente.peer"])
	})
	traces.mu.Lock()
	defer traces.mu.Unlock()
	for _, s := range traces.spans {
		require.NotContains(t, s.Name, "PeerService/Exchange", "a stream is no span")
	}
}
