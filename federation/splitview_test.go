package federation

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust/standing"
)

// journal is a log that can be read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(line)
}

// lines returns the lines that contain a text.
func (j *journal) lines(text string) (found []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.text.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// withLog makes a site log into a journal.
func withLog(j *journal) func(*Config) {
	return func(c *Config) { c.Logger = hclog.New(&hclog.LoggerOptions{Output: j, Level: hclog.Debug}) }
}

// observer is a site that receives bundles of us.example.org from its endpoint, a stream of its cluster, and streams of
// hubs.
type observer struct {
	*site
	journal  *journal
	us       *federationtest.Authority
	endpoint *federationtest.Endpoint
	streams  map[string]ententev1.PeerService_ExchangeClient
	// interests are the numbers of the subscriptions to the hubs' maps.
	interests map[string]uint64
}

func newObserver(t *testing.T) *observer {
	o := &observer{
		journal:   &journal{},
		us:        federationtest.NewAuthority(t, "us.example.org"),
		streams:   map[string]ententev1.PeerService_ExchangeClient{},
		interests: map[string]uint64{},
	}
	o.site = newSite(t, "eu.example.org", withLog(o.journal))
	o.endpoint = federationtest.NewEndpoint(t, o.us, o.us.Bundle(t, 1))
	return o
}

// relate creates the relationship with us.example.org, whose cluster may open a stream.
func (o *observer) relate(t *testing.T) *ententev1.Relationship {
	t.Helper()
	rel := spiffeRelationship(o.us, o.endpoint)
	rel.Peer = &ententev1.Peer{HomeTrustDomain: "us.example.org"}
	return o.create(t, rel, o.us.Bundle(t, 1))
}

// federateWithHubOverStream creates a relationship with a hub that opens streams.
func (o *observer) federateWithHubOverStream(t *testing.T, hub *federationtest.Authority) {
	t.Helper()
	rel := spiffeRelationship(hub, federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1)))
	rel.Peer, rel.Hub = &ententev1.Peer{
		HomeTrustDomain: hub.TrustDomain.Name(),
	}, &ententev1.Hub{
		Include: []string{"us.example.org"},
	}
	o.create(t, rel, hub.Bundle(t, 1))
}

// over sends a message on the stream of a cluster.
func (o *observer) over(t *testing.T, a *federationtest.Authority, m *ententev1.PeerMessage) {
	t.Helper()
	home := a.TrustDomain.Name()
	if o.streams[home] == nil {
		until(t, "the relationship to be read", func() bool { return len(o.manager.streams.Domains(home)) == 1 })
		o.streams[home] = o.intrude(t, a, "/entente/member/member-1")
		require.NoError(t, o.streams[home].Send(&ententev1.ExchangeRequest{Message: federationtest.Hello(home,
			"member-1")}))
	}
	if changes := m.GetMapChanges(); changes != nil {
		if o.interests[home] == 0 {
			o.interests[home] = mapInterest(t, o.streams[home])
		}
		changes.Subscription = o.interests[home]
	}
	require.NoError(t, o.streams[home].Send(&ententev1.ExchangeRequest{Message: m}))
}

// byEndpoint, byStream and byHub publish a bundle.
func (o *observer) byEndpoint(t *testing.T, b *bundle.Bundle) {
	o.endpoint.Serve(b)
	o.refresh(t, "us.example.org")
}

func (o *observer) byStream(t *testing.T, b *bundle.Bundle) {
	o.over(
		t,
		o.us,
		&ententev1.PeerMessage{
			Content: &ententev1.PeerMessage_Bundle{
				Bundle: &ententev1.PeerBundle{TrustDomain: "us.example.org", Document: b.Marshal()},
			},
		},
	)
}

func (o *observer) byHub(hub *federationtest.Authority) func(*testing.T, *bundle.Bundle) {
	return func(t *testing.T, b *bundle.Bundle) {
		v, err := bundle.NewMapEntry(b)
		require.NoError(t, err)
		o.over(
			t,
			hub,
			&ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapChanges{MapChanges: &ententev1.PeerMapChanges{
				TrustDomain: hub.TrustDomain.Name(),
				Bundles:     []*ententev1.PeerBundle{{TrustDomain: "us.example.org", Document: v.Document}},
			}}},
		)
	}
}

// awaitHubs waits until a hub's attestation is stored.
func (o *observer) awaitHubs(t *testing.T, hub *federationtest.Authority, b *bundle.Bundle) {
	t.Helper()
	until(t, "the attestation of the hub", func() bool {
		row, found, err := relationship.HubBundles.Get(o.store.View(),
			relationship.AttestationKey("us.example.org", hub.TrustDomain.Name()))
		if err != nil || !found {
			return false
		}
		is, err := relationship.HubBundle(row.Value)
		return err == nil && is.SameKeys(b)
	})
}

// alarmed waits for the alarm, and checks it in all places that an operator sees.
func (o *observer) alarmed(t *testing.T, sequence uint64, sources ...string) {
	t.Helper()
	until(t, "the alarm", func() bool { return len(o.show(t, "us.example.org").GetAlarms()) > 0 })
	alarms := o.show(t, "us.example.org").GetAlarms()
	require.Len(t, alarms, 1)
	require.Equal(t, relationship.AlarmSplitView, alarms[0].GetName())
	require.Equal(t, sequence, alarms[0].GetSequence())
	for _, source := range sources {
		require.Contains(t, alarms[0].GetDetail(), source+" ")
	}
	until(t, "the line in the audit log", func() bool {
		return strings.Contains(strings.Join(o.ledger.Decisions(), "\n"), "raise alarm us.example.org: split_view")
	})
	until(t, "the line in the log", func() bool { return len(o.journal.lines("contradicts itself")) > 0 })
	require.Contains(t, o.journal.lines("contradicts itself")[0], "alarm=split_view")
	require.InDelta(t, 1, testutil.ToFloat64(o.manager.intake.AlarmsTotal.WithLabelValues(relationship.AlarmSplitView)),
		0)
}

// validity waits for the metric of an alarm on a relationship.
func (o *observer) validity(t *testing.T) {
	t.Helper()
	until(t, "the metric", func() bool {
		return testutil.GatherAndCompare(o.registry, strings.NewReader(`
# HELP entente_federation_alarm 1 for each alarm on a foreign domain: broken_chain, new_chain, split_view.
# TYPE entente_federation_alarm gauge
entente_federation_alarm{alarm="split_view",trust_domain="us.example.org"} 1
`), "entente_federation_alarm") == nil
	})
}

// TestSplitViewOverStreams tests a domain with different keys under one sequence in two of its endpoint, its cluster's
// stream and a hub's stream, in any order. The bundle in effect does not change.
func TestSplitViewOverStreams(t *testing.T) {
	hub := federationtest.NewAuthority(t, "hub.example.org")
	const endpoint, stream, byHub = "endpoint", "peer us.example.org", "hub hub.example.org"
	type showing struct {
		by       string
		sequence uint64
	}
	for _, test := range []struct {
		name string
		// honest bundles are published in order, then other keys.
		honest []showing
		forged showing
		// contradicted is the earlier source of the sequence; counts is the sequence that stays in effect.
		contradicted string
		counts       uint64
	}{
		{"the stream after the endpoint", []showing{{endpoint, 2}}, showing{stream, 2}, endpoint, 2},
		{"the endpoint after the stream", []showing{{stream, 2}}, showing{endpoint, 2}, stream, 2},
		{"the stream, of an older version from the endpoint", []showing{{endpoint, 2}, {endpoint, 3}},
			showing{stream, 2}, endpoint, 3},
		{"the endpoint, of an older version from the stream", []showing{{stream, 2}, {stream, 3}}, showing{endpoint, 2},
			stream, 3},
		{"the stream after itself", []showing{{stream, 2}}, showing{stream, 2}, stream, 2},
		{"the stream of what an operator brought", nil, showing{stream, 1}, "bootstrap by anonymous", 1},
		{"a hub's stream after the endpoint", []showing{{endpoint, 2}}, showing{byHub, 2}, endpoint, 2},
		{"a hub's stream after the domain's", []showing{{stream, 2}}, showing{byHub, 2}, stream, 2},
		{"a hub's stream, of an older version", []showing{{stream, 2}, {endpoint, 3}}, showing{byHub, 2}, stream, 3},
		{"a hub's stream that goes back to an older version", []showing{{stream, 2}, {stream, 3}, {byHub, 3}},
			showing{byHub, 2}, stream, 3},
		{"a hub's stream after itself", []showing{{stream, 2}, {byHub, 2}}, showing{byHub, 2}, stream, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := newObserver(t)
			o.relate(t)
			o.federateWithHubOverStream(t, hub)
			shows := map[string]func(*testing.T, *bundle.Bundle){
				endpoint: o.byEndpoint,
				stream:   o.byStream,
				byHub:    o.byHub(hub),
			}
			for _, h := range test.honest {
				b := o.us.Bundle(t, h.sequence)
				shows[h.by](t, b)
				if h.by == byHub {
					o.awaitHubs(t, hub, b)
				} else {
					o.awaitSequence(t, "us.example.org", h.sequence)
				}
			}
			require.Empty(t, o.show(t, "us.example.org").GetAlarms(), "the same keys from all")
			shows[test.forged.by](t, o.us.Rotated(t).Bundle(t, test.forged.sequence))
			o.alarmed(t, test.forged.sequence, test.forged.by, test.contradicted)
			o.validity(t)
			require.True(t, o.stored(t, "us.example.org").Equal(o.us.Bundle(t, test.counts)), "trust goes on as it was")
			require.True(t, o.trust(t, "us.example.org").Verifiable())
		})
	}
}

// TestSplitViewAfterHub tests a domain whose hub attestation arrived first. The domain's own bundle counts, and the
// alarm names the contradiction of the hub.
func TestSplitViewAfterHub(t *testing.T) {
	hub := federationtest.NewAuthority(t, "hub.example.org")
	for name, test := range map[string]struct {
		sequence uint64
		shows    func(t *testing.T, o *observer)
		source   string
	}{
		"the endpoint": {2, func(t *testing.T, o *observer) { o.byEndpoint(t, o.us.Bundle(t, 2)) },
			"endpoint"},
		"the domain's own stream": {2, func(t *testing.T, o *observer) { o.byStream(t, o.us.Bundle(t, 2)) },
			"peer us.example.org"},
		"an operator's bundle": {1, func(*testing.T, *observer) {}, "bootstrap by anonymous"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newObserver(t)
			o.federateWithHubOverStream(t, hub)
			forged := o.us.Rotated(t).Bundle(t, test.sequence)
			o.byHub(hub)(t, forged)
			o.awaitHubs(t, hub, forged)
			require.Equal(t, standing.Fresh, o.trust(t, "us.example.org"), "by the attestation of the hub")
			o.relate(t)
			test.shows(t, o)
			o.alarmed(t, test.sequence, test.source, "hub hub.example.org")
			o.validity(t)
			o.awaitSequence(t, "us.example.org", test.sequence)
			require.True(t, o.stored(t, "us.example.org").Equal(o.us.Bundle(t, test.sequence)))
			require.Empty(t, o.show(t, "us.example.org").GetOriginHub())
		})
	}
}

// TestSplitViewOfTwoHubs tests a domain that two hubs attest over streams, without a relationship of its own.
func TestSplitViewOfTwoHubs(t *testing.T) {
	first := federationtest.NewAuthority(t, "hub1.example.org")
	second := federationtest.NewAuthority(t, "hub2.example.org")
	o := newObserver(t)
	o.federateWithHubOverStream(t, first)
	o.federateWithHubOverStream(t, second)
	forged := o.us.Rotated(t).Bundle(t, 5)
	o.byHub(second)(t, forged)
	o.awaitHubs(t, second, forged)
	o.byHub(first)(t, o.us.Bundle(t, 5))
	o.alarmed(t, 5, "hub hub1.example.org", "hub hub2.example.org")
	require.Equal(t, "hub1.example.org", o.show(t, "us.example.org").GetOriginHub(),
		"the first by name, regardless of the order of arrival")
}

// TestAlarmWithoutLeader tests that a contradiction that arrives while there is no leader raises its alarm later.
func TestAlarmWithoutLeader(t *testing.T) {
	o := newObserver(t)
	o.relate(t)
	forged := o.us.Rotated(t).Bundle(t, 1)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	out := o.manager.receiver.ReceiveBundle(gone, "us.example.org", "us.example.org", forged.Marshal())
	require.True(t, out.Unavailable, "%v", out)
	require.Empty(t, o.show(t, "us.example.org").GetAlarms())
	out = o.manager.receiver.ReceiveBundle(t.Context(), "us.example.org", "us.example.org", forged.Marshal())
	require.Equal(t, "equivocation", out.Refusal)
	o.alarmed(t, 1, "peer us.example.org")
}

// TestAlarmIsStoredWithItsCause tests that one revision has the alarm and its cause, so that a crash cannot separate
// them.
func TestAlarmIsStoredWithItsCause(t *testing.T) {
	r := newRoom(t)
	hub, us := federationtest.NewAuthority(t, "hub.example.org"), federationtest.NewAuthority(t, "us.example.org")
	p, endpoint := federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1)), federationtest.NewEndpoint(t, us,
		us.Bundle(t, 1))
	r.federateWithHub(t, hub, p, "us.example.org")
	r.create(t, spiffeRelationship(us, endpoint), us.Bundle(t, 1))
	alarmed := func() raftstore.Revision {
		row, _, err := relationship.Relationships.Get(r.store.View(), "us.example.org")
		require.NoError(t, err)
		require.Equal(t, []string{relationship.AlarmSplitView}, relationship.AlarmsOf(row.Value))
		return row.Revision
	}
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, us.Rotated(t).Bundle(t, 1)))
	r.refresh(t, "hub.example.org")
	word, found, err := relationship.HubBundles.Get(r.store.View(), "us.example.org/hub.example.org")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, word.Revision, alarmed())

	_, err = r.service.UpdateRelationship(t.Context(), &ententev1.UpdateRelationshipRequest{
		Relationship: &ententev1.Relationship{
			TrustDomain: "us.example.org",
		}, BootstrapBundle: us.Bundle(t, 2).Marshal(),
	})
	require.NoError(t, err)
	require.Empty(t, r.show(t, "us.example.org").GetAlarms(), "an operator has looked into it")
	p.ServeMap(hub.Bundle(t, 1), mapOf(t, us.Rotated(t).Bundle(t, 3)))
	r.refresh(t, "hub.example.org")
	endpoint.Serve(us.Bundle(t, 3))
	r.refresh(t, "us.example.org")
	own, _, err := relationship.ForeignBundles.Get(r.store.View(), "us.example.org")
	require.NoError(t, err)
	require.Equal(t, own.Revision, alarmed())
}
