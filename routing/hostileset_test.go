package routing

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// hostile is a peer that says what it likes on a stream with a room that imports shop from it.
type hostile struct {
	*Freight
	room *room
	key  sharedKey
	sent []*ententev1.PeerMessage
}

func newHostile(t *testing.T) *hostile {
	t.Helper()
	r := newRoom(t)
	r.agreements = tableAgreements{"us.example.org"}
	r.agree(t, "eu.example.org", "eu.example.org", epoch, true)
	r.imports(t, "shop", "eu.example.org", "")
	f := r.Carry(PeerStream{Home: "eu.example.org", Wake: func() {}, Domains: func() []string { return []string{"eu.example.org"} }})
	t.Cleanup(func() { r.carrying.remove(f) })
	h := &hostile{Freight: f, room: r, key: sharedKey{"eu.example.org", "shop"}}
	h.next()
	return h
}

func (h *hostile) next() {
	out, _ := h.Next(time.Now())
	h.sent = append(h.sent, out...)
}

// store stores what came, as Run does.
func (h *hostile) storeAll(t *testing.T) {
	t.Helper()
	for batch := h.take(); len(batch) > 0; batch = h.take() {
		require.True(t, h.store(t.Context(), batch))
	}
	h.next()
}

// answered is what the room said last of a set.
func (h *hostile) answered() string {
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
	return &ententev1.PeerMessage{Content: &ententev1.PeerMessage_ServiceSets{ServiceSets: &ententev1.PeerServiceSets{Sets: list}}}
}

func peerInstance(change func(*ententev1.PeerInstance)) *ententev1.PeerInstance {
	i := &ententev1.PeerInstance{
		Address: "10.0.0.1:443", Locality: &ententev1.Locality{Region: "eu", Zone: "a"}, SpiffeId: "spiffe://eu.example.org/shop", Weight: 1,
		Health: ententev1.Health_HEALTH_HEALTHY,
	}
	if change != nil {
		change(i)
	}
	return i
}

func TestHostileSetsAreRefusedWhole(t *testing.T) {
	many := make([]*ententev1.PeerInstance, maxImportedSet+1)
	for n := range many {
		many[n] = peerInstance(func(i *ententev1.PeerInstance) { i.Address = fmt.Sprintf("10.0.%d.%d:443", n/250, n%250+1) })
	}
	for name, c := range map[string]struct {
		key       sharedKey
		change    func(*ententev1.PeerInstance)
		instances []*ententev1.PeerInstance
		withheld  bool
		digest    *digest
		refusal   string
	}{
		"of another service":        {key: sharedKey{"eu.example.org", "bank"}, refusal: refusedNotImported},
		"of another domain":         {key: sharedKey{"ap.example.org", "shop"}, refusal: refusedNotImported},
		"of a hosted domain":        {key: sharedKey{"us.example.org", "shop"}, refusal: refusedNotImported},
		"an ID of a hosted domain":  {change: func(i *ententev1.PeerInstance) { i.SpiffeId = "spiffe://us.example.org/shop" }, refusal: refusedForeign},
		"an ID of a third domain":   {change: func(i *ententev1.PeerInstance) { i.SpiffeId = "spiffe://ap.example.org/shop" }, refusal: refusedForeign},
		"an ID of a longer domain":  {change: func(i *ententev1.PeerInstance) { i.SpiffeId = "spiffe://x.eu.example.org/shop" }, refusal: refusedForeign},
		"a member's ID":             {change: func(i *ententev1.PeerInstance) { i.SpiffeId = "spiffe://eu.example.org/entente/member/eu-1" }, refusal: refusedReserved},
		"no ID":                     {change: func(i *ententev1.PeerInstance) { i.SpiffeId = "" }, refusal: refusedID},
		"an ID without path":        {change: func(i *ententev1.PeerInstance) { i.SpiffeId = "spiffe://eu.example.org" }, refusal: refusedMalformed},
		"an ID of another spelling": {change: func(i *ententev1.PeerInstance) { i.SpiffeId = "SPIFFE://eu.example.org/shop" }, refusal: refusedID},
		"a name for an address":     {change: func(i *ententev1.PeerInstance) { i.Address = "shop.example.org:443" }, refusal: refusedAddress},
		"everywhere":                {change: func(i *ententev1.PeerInstance) { i.Address = "0.0.0.0:443" }, refusal: refusedAddress},
		"multicast":                 {change: func(i *ententev1.PeerInstance) { i.Address = "224.0.0.1:443" }, refusal: refusedAddress},
		"port 0":                    {change: func(i *ententev1.PeerInstance) { i.Address = "10.0.0.1:0" }, refusal: refusedAddress},
		"a mapped address":          {change: func(i *ententev1.PeerInstance) { i.Address = "[::ffff:10.0.0.1]:443" }, refusal: refusedMalformed},
		"no place":                  {change: func(i *ententev1.PeerInstance) { i.Locality = nil }, refusal: refusedLocality},
		"no zone":                   {change: func(i *ententev1.PeerInstance) { i.Locality.Zone = "" }, refusal: refusedLocality},
		"a slash in a place":        {change: func(i *ententev1.PeerInstance) { i.Locality.Zone = "a/b" }, refusal: refusedLocality},
		"no weight":                 {change: func(i *ententev1.PeerInstance) { i.Weight = 0 }, refusal: refusedMalformed},
		"a weight beyond all":       {change: func(i *ententev1.PeerInstance) { i.Weight = 1<<32 - 1 }, refusal: refusedMalformed},
		"no health":                 {change: func(i *ententev1.PeerInstance) { i.Health = 0 }, refusal: refusedMalformed},
		"an unknown health":         {change: func(i *ententev1.PeerInstance) { i.Health = 9 }, refusal: refusedMalformed},
		"an address twice":          {instances: []*ententev1.PeerInstance{peerInstance(nil), peerInstance(nil)}, refusal: refusedTwice},
		"too many":                  {instances: many, refusal: refusedMany},
		"another digest":            {digest: &digest{1}, refusal: refusedDigest},
		"withheld, with instances":  {withheld: true, refusal: refusedMalformed},
		"good":                      {refusal: "stored"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			good := newSharedSet(h.key, false, []*ententev1.PeerInstance{peerInstance(func(i *ententev1.PeerInstance) { i.Address = "10.9.9.9:443" })})
			require.NoError(t, h.Take(sets(good.parts()...)))
			h.storeAll(t)
			require.Equal(t, "stored", h.answered())

			key, list := c.key, c.instances
			if key == (sharedKey{}) {
				key = h.key
			}
			if list == nil {
				list = []*ententev1.PeerInstance{peerInstance(nil), peerInstance(func(i *ententev1.PeerInstance) {
					i.Address = "10.0.0.2:443"
					if c.change != nil {
						c.change(i)
					}
				})}
			}
			which := digestOfSet(key, c.withheld, list)
			if c.digest != nil {
				which = *c.digest
			}
			require.NoError(t, h.Take(sets(&ententev1.PeerServiceSet{Version: key.version(which), Last: true, Instances: list, Withheld: c.withheld})))
			h.storeAll(t)
			require.Equal(t, c.refusal, h.answered())
			if c.refusal == "stored" {
				require.Len(t, h.room.shown(t, "shop"), 2)
				return
			}
			require.Contains(t, h.room.shown(t, "shop"), "10.9.9.9:443", "what was stored stays")
			require.Len(t, h.room.shown(t, "shop"), 1)
			if c.refusal == refusedNotImported {
				return
			}
			require.Equal(t, c.refusal, h.room.imported(t, "shop", "eu.example.org").GetRefusal())
			require.EqualValues(t, 1, testutil.ToFloat64(h.room.metrics.imported.WithLabelValues(c.refusal)))
			require.Equal(t, "refuse instances", h.room.audit.events[len(h.room.audit.events)-1].Action)

			// The same once more writes nothing, and a good set ends the refusal.
			revision := h.room.store.View().Revision()
			require.NoError(t, h.Take(sets(&ententev1.PeerServiceSet{Version: key.version(which), Last: true, Instances: list, Withheld: c.withheld})))
			h.storeAll(t)
			require.Equal(t, revision, h.room.store.View().Revision())
			require.NoError(t, h.Take(sets(good.parts()...)))
			h.storeAll(t)
			require.Empty(t, h.room.imported(t, "shop", "eu.example.org").GetRefusal())
		})
	}
}

func TestHostileStreamsEnd(t *testing.T) {
	interest := func(number uint64, wanted ...*ententev1.PeerServiceVersion) *ententev1.PeerMessage {
		return &ententev1.PeerMessage{Content: &ententev1.PeerMessage_Services{Services: &ententev1.PeerServices{
			Interest: &ententev1.PeerServiceInterest{Number: number, Wanted: wanted},
		}}}
	}
	shop := sharedKey{"eu.example.org", "shop"}
	for name, c := range map[string]struct {
		messages []*ententev1.PeerMessage
		refusal  string
	}{
		"wants very much":        {[]*ententev1.PeerMessage{interest(1, make([]*ententev1.PeerServiceVersion, maxImports+1)...)}, "the peer wants 1001 services; 1000 are the most on one stream"},
		"an old list":            {[]*ententev1.PeerMessage{interest(2), interest(2)}, "the peer's list of services has the number 2, and it had 2 before"},
		"no domain":              {[]*ententev1.PeerMessage{interest(1, &ententev1.PeerServiceVersion{TrustDomain: "a b", Service: "shop"})}, `the peer names a service of "a b", which is no trust domain`},
		"no service":             {[]*ententev1.PeerMessage{interest(1, &ententev1.PeerServiceVersion{TrustDomain: "us.example.org", Service: "../x"})}, "not a service name"},
		"half a digest":          {[]*ententev1.PeerMessage{interest(1, &ententev1.PeerServiceVersion{TrustDomain: "us.example.org", Service: "shop", Digest: make([]byte, 16)})}, "the peer names a digest of 16 bytes for shop of us.example.org"},
		"a set without a digest": {[]*ententev1.PeerMessage{sets(&ententev1.PeerServiceSet{Version: shop.version(digest{})})}, "without a digest"},
		"sets that are mixed up": {[]*ententev1.PeerMessage{sets(&ententev1.PeerServiceSet{Version: shop.version(digest{1})}, &ententev1.PeerServiceSet{Version: shop.version(digest{2})})}, "before all of shop of eu.example.org has come"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			var err error
			for _, m := range c.messages {
				if err = h.Take(m); err != nil {
					break
				}
			}
			require.ErrorContains(t, err, c.refusal)
		})
	}
	t.Run("nobody waits for the answers", func(t *testing.T) {
		h := newHostile(t)
		var err error
		for n := 0; err == nil && n < 100000; n++ {
			which := digest{byte(n), byte(n >> 8), byte(n >> 16), 1}
			err = h.Take(sets(&ententev1.PeerServiceSet{Version: sharedKey{"eu.example.org", "bank"}.version(which), Last: true}))
		}
		require.ErrorContains(t, err, "the peer brings services that nobody imports")
	})
	t.Run("a list of what is not exported says nothing of what there is", func(t *testing.T) {
		h := newHostile(t)
		m := registration()
		m.SpiffeId = "spiffe://us.example.org/shop"
		_, err := h.room.RegisterInstance(admin(t), &ententev1.RegisterInstanceRequest{Instance: m})
		require.NoError(t, err)
		require.NoError(t, h.Take(interest(1, sharedKey{"us.example.org", "shop"}.version(digest{}), sharedKey{"us.example.org", "nothing"}.version(digest{}))))
		h.next()
		found := 0
		for _, m := range h.sent {
			for _, s := range m.GetServiceSets().GetSets() {
				require.True(t, s.GetWithheld())
				require.Empty(t, s.GetInstances())
				found++
			}
		}
		require.Equal(t, 2, found)
	})
}

// TestWhatWasEndedMeanwhileIsNotStored: an import that ends, or an agreement that is suspended or with another peer, while a set of it is on its way.
func TestWhatWasEndedMeanwhileIsNotStored(t *testing.T) {
	for name, end := range map[string]func(h *hostile){
		"the import": func(h *hostile) {
			_, err := h.room.UnimportService(admin(t), &ententev1.UnimportServiceRequest{Service: "shop", From: "eu.example.org"})
			require.NoError(t, err)
		},
		"the agreement, suspended":   func(h *hostile) { h.room.agree(t, "eu.example.org", "eu.example.org", epoch, false) },
		"the agreement, with others": func(h *hostile) { h.room.agree(t, "eu.example.org", "ap.example.org", epoch, true) },
		"the agreement, made anew":   func(h *hostile) { h.room.agree(t, "eu.example.org", "eu.example.org", epoch.Add(1), true) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			set := newSharedSet(h.key, false, []*ententev1.PeerInstance{peerInstance(nil)})
			require.NoError(t, h.Take(sets(set.parts()...)))
			end(h)
			h.storeAll(t)
			require.Equal(t, refusedNotImported, h.answered())
			require.Empty(t, h.room.shown(t, "shop"))
		})
	}
}

// TestImportsAreBounded: a peer gets no more room than it is to have, and none of what is registered here.
func TestImportsAreBounded(t *testing.T) {
	room := func() *importRoom {
		return &importRoom{
			services: map[string]int{"shop": 3000}, from: map[string]int{"eu.example.org": maxImportedFrom - 100}, all: 30000,
			had: map[string]int{"cart/eu.example.org": 50},
		}
	}
	come := func(service string, n int) arrival {
		return arrival{of: Import{Service: service, From: "eu.example.org"}, instances: make([]Instance, n)}
	}
	require.NoError(t, room().take(come("cart", 150)), "50 of them are there already")
	require.ErrorContains(t, room().take(come("cart", 151)), "more than 20000 instances would be imported from eu.example.org")
	require.ErrorContains(t, room().take(come("shop", 1001)), "service shop would have more than 4000 instances")
	full := room()
	full.all, full.from = maxImported, map[string]int{}
	require.ErrorContains(t, full.take(come("cart", 51)), "more than 50000 instances would be imported in all")
	require.NoError(t, full.take(come("cart", 50)))
	counted := room()
	require.NoError(t, counted.take(come("a", 100)))
	require.Error(t, counted.take(come("b", 1)), "two sets of one batch are counted together")
}

// TestARefusalShowsNothingOfAnImportBefore: what came for an import that was replaced stays out of sight when all that comes for the
// next one is refused.
func TestARefusalShowsNothingOfAnImportBefore(t *testing.T) {
	h := newHostile(t)
	require.NoError(t, h.Take(sets(newSharedSet(h.key, false, []*ententev1.PeerInstance{peerInstance(nil)}).parts()...)))
	h.storeAll(t)
	require.Len(t, h.room.shown(t, "shop"), 1)
	h.room.imports(t, "bank", "eu.example.org", "shop")
	require.Empty(t, h.room.shown(t, "shop"))
	h.touch(sharedChanges{taken: true})
	h.next()
	bank := sharedKey{"eu.example.org", "bank"}
	bad := newSharedSet(bank, false, []*ententev1.PeerInstance{peerInstance(func(i *ententev1.PeerInstance) { i.SpiffeId = "spiffe://us.example.org/x" })})
	require.NoError(t, h.Take(sets(bad.parts()...)))
	h.storeAll(t)
	require.Equal(t, refusedForeign, h.answered())
	require.Empty(t, h.room.shown(t, "shop"))
	require.Equal(t, refusedForeign, h.room.imported(t, "shop", "eu.example.org").GetRefusal())
	good := newSharedSet(bank, false, []*ententev1.PeerInstance{peerInstance(func(i *ententev1.PeerInstance) { i.Address = "10.0.0.7:443" })})
	require.NoError(t, h.Take(sets(good.parts()...)))
	h.storeAll(t)
	require.Contains(t, h.room.shown(t, "shop"), "10.0.0.7:443")
	require.Len(t, h.room.shown(t, "shop"), 1)
}
