package exchange

import (
	"fmt"
	"testing"
	"time"

	"github.com/ententehq/entente/access/audit"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/registry"
	"github.com/ententehq/entente/routing/routingtest"
)

// hostile is a peer that sends arbitrary messages on a stream with a member that imports shop from it.
type hostile struct {
	*Sync
	member *member
	key    setKey
	sent   []*ententev1.PeerMessage
}

func newHostile(t *testing.T) *hostile {
	t.Helper()
	m := newMember(t, "us.example.org")
	m.agree(t, "eu.example.org", "eu.example.org", routingtest.Epoch, true)
	m.imports(t, "shop", "eu.example.org", "")
	f := m.NewSync(
		Stream{Home: "eu.example.org", Wake: func() {}, Domains: func() []string { return []string{"eu.example.org"} }},
	)
	t.Cleanup(func() { m.syncs.remove(f) })
	h := &hostile{Sync: f, member: m, key: setKey{"eu.example.org", "shop"}}
	h.next()
	return h
}

func (h *hostile) next() {
	out, _ := h.Next(time.Now())
	h.sent = append(h.sent, out...)
}

// storeAll stores what was received, as Run does.
func (h *hostile) storeAll(t *testing.T) {
	t.Helper()
	for batch := h.batch(); len(batch) > 0; batch = h.batch() {
		require.True(t, h.storeBatch(t.Context(), batch))
	}
	h.next()
}

// lastAck returns the last acknowledgement that the member sent.
func (h *hostile) lastAck() string {
	for n := len(h.sent) - 1; n >= 0; n-- {
		if list := h.sent[n].GetServices().GetAcknowledgements(); len(list) > 0 {
			if refusal := list[len(list)-1].GetRefusal(); refusal != "" {
				return refusal
			}
			return "stored"
		}
	}
	return "nothing"
}

func sets(list ...*ententev1.PeerServiceSet) *ententev1.PeerMessage {
	return &ententev1.PeerMessage{
		Content: &ententev1.PeerMessage_ServiceSets{ServiceSets: &ententev1.PeerServiceSets{Sets: list}},
	}
}

func lastEvent(m *member) audit.Event {
	events := m.audit.Events()
	return events[len(events)-1]
}

func withID(id string) func(*ententev1.PeerInstance) {
	return func(i *ententev1.PeerInstance) { i.SpiffeId = id }
}

func withAddress(address string) func(*ententev1.PeerInstance) {
	return func(i *ententev1.PeerInstance) { i.Address = address }
}

// TestHostileSetsAreRefused: a set with one invalid instance is refused as a whole, and what was stored before stays.
func TestHostileSetsAreRefused(t *testing.T) {
	many := make([]*ententev1.PeerInstance, maxImportedSet+1)
	for n := range many {
		many[n] = peerInstanceWith(
			func(i *ententev1.PeerInstance) { i.Address = fmt.Sprintf("10.0.%d.%d:443", n/250, n%250+1) },
		)
	}
	type peer = ententev1.PeerInstance
	for name, c := range map[string]struct {
		key         setKey
		change      func(*ententev1.PeerInstance)
		instances   []*ententev1.PeerInstance
		notExported bool
		digest      *digest
		refusal     string
	}{
		"of another service":        {key: setKey{"eu.example.org", "bank"}, refusal: refusedNotImported},
		"of another domain":         {key: setKey{"ap.example.org", "shop"}, refusal: refusedNotImported},
		"of a hosted domain":        {key: setKey{"us.example.org", "shop"}, refusal: refusedNotImported},
		"an ID of a hosted domain":  {change: withID("spiffe://us.example.org/shop"), refusal: refusedForeign},
		"an ID of a third domain":   {change: withID("spiffe://ap.example.org/shop"), refusal: refusedForeign},
		"an ID of a longer domain":  {change: withID("spiffe://x.eu.example.org/shop"), refusal: refusedForeign},
		"a reserved ID":             {change: withID("spiffe://eu.example.org/entente/x"), refusal: refusedReserved},
		"no ID":                     {change: withID(""), refusal: refusedID},
		"an ID without path":        {change: withID("spiffe://eu.example.org"), refusal: refusedMalformed},
		"an ID of another spelling": {change: withID("SPIFFE://eu.example.org/shop"), refusal: refusedID},
		"a name for an address":     {change: withAddress("shop.example.org:443"), refusal: refusedAddress},
		"everywhere":                {change: withAddress("0.0.0.0:443"), refusal: refusedAddress},
		"multicast":                 {change: withAddress("224.0.0.1:443"), refusal: refusedAddress},
		"port 0":                    {change: withAddress("10.0.0.1:0"), refusal: refusedAddress},
		"a mapped address":          {change: withAddress("[::ffff:10.0.0.1]:443"), refusal: refusedMalformed},
		"no place":                  {change: func(i *peer) { i.Locality = nil }, refusal: refusedLocality},
		"no zone":                   {change: func(i *peer) { i.Locality.Zone = "" }, refusal: refusedLocality},
		"a slash in a place":        {change: func(i *peer) { i.Locality.Zone = "a/b" }, refusal: refusedLocality},
		"no weight":                 {change: func(i *peer) { i.Weight = 0 }, refusal: refusedMalformed},
		"a weight beyond all":       {change: func(i *peer) { i.Weight = 1<<32 - 1 }, refusal: refusedMalformed},
		"no health":                 {change: func(i *peer) { i.Health = 0 }, refusal: refusedMalformed},
		"an unknown health":         {change: func(i *peer) { i.Health = 9 }, refusal: refusedMalformed},
		"an address twice": {
			instances: []*peer{peerInstanceWith(nil), peerInstanceWith(nil)}, refusal: refusedDuplicate,
		},
		"too many":                     {instances: many, refusal: refusedMany},
		"another digest":               {digest: &digest{1}, refusal: refusedDigest},
		"not exported, with instances": {notExported: true, refusal: refusedMalformed},
		"good":                         {refusal: "stored"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			good := newExportedSet(
				h.key,
				false,
				[]*ententev1.PeerInstance{
					peerInstanceWith(withAddress("10.9.9.9:443")),
				},
			)
			require.NoError(t, h.Receive(sets(good.parts()...)))
			h.storeAll(t)
			require.Equal(t, "stored", h.lastAck())

			key, list := c.key, c.instances
			if key == (setKey{}) {
				key = h.key
			}
			if list == nil {
				list = []*ententev1.PeerInstance{
					peerInstanceWith(nil),
					peerInstanceWith(func(i *ententev1.PeerInstance) {
						i.Address = "10.0.0.2:443"
						if c.change != nil {
							c.change(i)
						}
					}),
				}
			}
			which := digestOfSet(key, c.notExported, list)
			if c.digest != nil {
				which = *c.digest
			}
			require.NoError(
				t,
				h.Receive(
					sets(
						&ententev1.PeerServiceSet{
							Version:     key.version(which),
							Last:        true,
							Instances:   list,
							NotExported: c.notExported,
						},
					),
				),
			)
			h.storeAll(t)
			require.Equal(t, c.refusal, h.lastAck())
			if c.refusal == "stored" {
				require.Len(t, h.member.instances(t, "shop"), 2)
				return
			}
			require.Contains(t, h.member.instances(t, "shop"), "10.9.9.9:443", "what was stored before is lost")
			require.Len(t, h.member.instances(t, "shop"), 1)
			if c.refusal == refusedNotImported {
				return
			}
			require.Equal(t, c.refusal, h.member.imported(t, "shop", "eu.example.org").GetRefusal())
			require.EqualValues(t, 1, testutil.ToFloat64(h.member.metrics.imported.WithLabelValues(c.refusal)))
			require.Equal(t, "refuse instances", lastEvent(h.member).Action)

			// The same once more writes nothing, and a good set ends the refusal.
			revision := h.member.store.View().Revision()
			require.NoError(
				t,
				h.Receive(
					sets(
						&ententev1.PeerServiceSet{
							Version:     key.version(which),
							Last:        true,
							Instances:   list,
							NotExported: c.notExported,
						},
					),
				),
			)
			h.storeAll(t)
			require.Equal(t, revision, h.member.store.View().Revision())
			require.NoError(t, h.Receive(sets(good.parts()...)))
			h.storeAll(t)
			require.Empty(t, h.member.imported(t, "shop", "eu.example.org").GetRefusal())
		})
	}
}

func TestHostileStreamsEnd(t *testing.T) {
	version := func(domain, service string, digest []byte) *ententev1.PeerServiceVersion {
		return &ententev1.PeerServiceVersion{TrustDomain: domain, Service: service, Digest: digest}
	}
	interest := func(number uint64, wanted ...*ententev1.PeerServiceVersion) *ententev1.PeerMessage {
		return &ententev1.PeerMessage{Content: &ententev1.PeerMessage_Services{Services: &ententev1.PeerServices{
			Subscription: &ententev1.PeerServiceSubscription{Number: number, Wanted: wanted},
		}}}
	}
	shop := setKey{"eu.example.org", "shop"}
	for name, c := range map[string]struct {
		messages []*ententev1.PeerMessage
		refusal  string
	}{
		"too many subscriptions": {
			[]*ententev1.PeerMessage{interest(1, make([]*ententev1.PeerServiceVersion, maxImports+1)...)},
			"the peer subscribes to 1001 services; 1000 are allowed on one stream",
		},
		"an old list": {
			[]*ententev1.PeerMessage{interest(2), interest(2)},
			"the peer's list of subscriptions has the number 2, which is not above the previous number 2",
		},
		"no domain": {
			[]*ententev1.PeerMessage{interest(1, version("a b", "shop", nil))},
			`the peer sent a service of "a b", which is no trust domain`,
		},
		"no service": {
			[]*ententev1.PeerMessage{interest(1, version("us.example.org", "../x", nil))},
			"not a service name",
		},
		"half a digest": {
			[]*ententev1.PeerMessage{interest(1, version("us.example.org", "shop", make([]byte, 16)))},
			"the peer sent a digest of 16 bytes for shop of us.example.org",
		},
		"a set without a digest": {
			[]*ententev1.PeerMessage{sets(&ententev1.PeerServiceSet{Version: shop.version(digest{})})},
			"the peer sent shop of eu.example.org without a digest",
		},
		"mixed parts of sets": {
			[]*ententev1.PeerMessage{sets(
				&ententev1.PeerServiceSet{Version: shop.version(digest{1})},
				&ententev1.PeerServiceSet{Version: shop.version(digest{2})},
			)},
			"the peer sent shop of eu.example.org before all parts of shop of eu.example.org",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			var err error
			for _, m := range c.messages {
				if err = h.Receive(m); err != nil {
					break
				}
			}
			require.ErrorContains(t, err, c.refusal)
		})
	}
	t.Run("a peer that does not wait for acknowledgements", func(t *testing.T) {
		h := newHostile(t)
		var err error
		for n := 0; err == nil && n < 100000; n++ {
			which := digest{byte(n), byte(n >> 8), byte(n >> 16), 1}
			err = h.Receive(
				sets(&ententev1.PeerServiceSet{Version: setKey{"eu.example.org", "bank"}.version(which), Last: true}),
			)
		}
		require.ErrorContains(t, err, "the peer sends services that are not imported")
	})
	t.Run("subscriptions to what is not exported reveal nothing", func(t *testing.T) {
		h := newHostile(t)
		m := routingtest.Registration()
		m.SpiffeId = "spiffe://us.example.org/shop"
		h.member.registerInstance(t, m)
		require.NoError(
			t,
			h.Receive(
				interest(
					1,
					setKey{"us.example.org", "shop"}.version(digest{}),
					setKey{"us.example.org", "nothing"}.version(digest{}),
				),
			),
		)
		h.next()
		found := 0
		for _, m := range h.sent {
			for _, s := range m.GetServiceSets().GetSets() {
				require.True(t, s.GetNotExported())
				require.Empty(t, s.GetInstances())
				found++
			}
		}
		require.Equal(t, 2, found)
	})
}

// TestEndedImportIsNotStored: a set is not stored if meanwhile the import has ended, or the agreement is suspended or
// has another peer.
func TestEndedImportIsNotStored(t *testing.T) {
	for name, end := range map[string]func(h *hostile){
		"the import": func(h *hostile) {
			_, err := h.member.UnimportService(routingtest.Admin(t),
				&ententev1.UnimportServiceRequest{Service: "shop", From: "eu.example.org"})
			require.NoError(t, err)
		},
		"the agreement, suspended": func(h *hostile) {
			h.member.agree(t, "eu.example.org", "eu.example.org", routingtest.Epoch, false)
		},
		"the agreement, with another peer": func(h *hostile) {
			h.member.agree(t, "eu.example.org", "ap.example.org", routingtest.Epoch, true)
		},
		"the agreement, replaced": func(h *hostile) {
			h.member.agree(t, "eu.example.org", "eu.example.org", routingtest.Epoch.Add(1), true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			set := newExportedSet(h.key, false, []*ententev1.PeerInstance{peerInstanceWith(nil)})
			require.NoError(t, h.Receive(sets(set.parts()...)))
			end(h)
			h.storeAll(t)
			require.Equal(t, refusedNotImported, h.lastAck())
			require.Empty(t, h.member.instances(t, "shop"))
		})
	}
}

// TestImportsAreBounded: a peer cannot import more than its bounds, nor displace registered instances.
func TestImportsAreBounded(t *testing.T) {
	quota := func() *importQuota {
		return &importQuota{
			services: map[string]int{
				"shop": 3000,
			}, from: map[string]int{"eu.example.org": maxImportedFrom - 100}, all: 30000,
			stored: map[string]int{"cart/eu.example.org": 50},
		}
	}
	received := func(service string, n int) receivedSet {
		return receivedSet{
			wanted:    serviceImport{Service: service, From: "eu.example.org"},
			instances: make([]registry.Instance, n),
		}
	}
	require.NoError(t, quota().add(received("cart", 150)), "50 of them are there already")
	require.ErrorContains(
		t,
		quota().add(received("cart", 151)),
		"more than 20000 instances would be imported from eu.example.org",
	)
	require.ErrorContains(t, quota().add(received("shop", 1001)), "service shop would have more than 4000 instances")
	full := quota()
	full.all, full.from = maxImported, map[string]int{}
	require.ErrorContains(t, full.add(received("cart", 51)), "more than 50000 instances would be imported in total")
	require.NoError(t, full.add(received("cart", 50)))
	counted := quota()
	require.NoError(t, counted.add(received("a", 100)))
	require.EqualError(
		t,
		counted.add(received("b", 1)),
		"more than 20000 instances would be imported from eu.example.org",
		"two sets of one batch are counted together",
	)
}

// TestRefusalKeepsReplacedImportHidden: what was received for a replaced import stays hidden if every set for the new
// import is refused.
func TestRefusalKeepsReplacedImportHidden(t *testing.T) {
	h := newHostile(t)
	require.NoError(
		t,
		h.Receive(sets(newExportedSet(h.key, false, []*ententev1.PeerInstance{peerInstanceWith(nil)}).parts()...)),
	)
	h.storeAll(t)
	require.Len(t, h.member.instances(t, "shop"), 1)
	h.member.imports(t, "bank", "eu.example.org", "shop")
	require.Empty(t, h.member.instances(t, "shop"))
	h.affect(sharedChanges{imports: true})
	h.next()
	bank := setKey{"eu.example.org", "bank"}
	bad := newExportedSet(
		bank,
		false,
		[]*ententev1.PeerInstance{
			peerInstanceWith(withID("spiffe://us.example.org/x")),
		},
	)
	require.NoError(t, h.Receive(sets(bad.parts()...)))
	h.storeAll(t)
	require.Equal(t, refusedForeign, h.lastAck())
	require.Empty(t, h.member.instances(t, "shop"))
	require.Equal(t, refusedForeign, h.member.imported(t, "shop", "eu.example.org").GetRefusal())
	good := newExportedSet(
		bank,
		false,
		[]*ententev1.PeerInstance{peerInstanceWith(withAddress("10.0.0.7:443"))},
	)
	require.NoError(t, h.Receive(sets(good.parts()...)))
	h.storeAll(t)
	require.Contains(t, h.member.instances(t, "shop"), "10.0.0.7:443")
	require.Len(t, h.member.instances(t, "shop"), 1)
}
