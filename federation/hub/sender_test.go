package hub

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

func versionAt(n uint64) relationship.Version {
	return relationship.Version{Sequence: n, Ordered: true, Digest: [32]byte{byte(n)}}
}

var someTime = time.Unix(1_800_000_000, 0)

// newTestSender returns a sender of an empty map with the budget of one peer.
func newTestSender() (*sender, *mapLog) {
	log, budget := newMapLog(), peer.NewMapBudget()
	return newSender(budget, log, func(string) []byte { return nil }), log
}

// sent returns the map changes in messages as text: bundles, withdrawn domains, and whether the map is complete.
func sentText(t *testing.T, messages []*ententev1.PeerMessage) string {
	t.Helper()
	var words []string
	for _, m := range messages {
		c := m.GetMapChanges()
		require.NotNil(t, c)
		for _, b := range c.GetBundles() {
			words = append(words, b.GetTrustDomain()+"="+string(b.GetDocument()))
		}
		for _, td := range c.GetWithdrawn() {
			words = append(words, "-"+td)
		}
		if c.GetComplete() {
			words = append(words, "complete")
		}
	}
	return strings.Join(words, " ")
}

// acknowledgeAll acknowledges all messages with map changes.
func (s *sender) acknowledgeAll(t *testing.T, messages []*ententev1.PeerMessage) {
	t.Helper()
	for _, m := range messages {
		if c := m.GetMapChanges(); session.DomainsNamed(c) > 0 {
			require.NoError(
				t,
				s.Acknowledge(
					&ententev1.PeerMapAcknowledgement{
						TrustDomain:  c.GetTrustDomain(),
						Subscription: c.GetSubscription(),
					},
					someTime,
				),
			)
		}
	}
}

// TestMapIsSent: a peer is sent what it lacks of its subscription, and then each change.
func TestMapIsSent(t *testing.T) {
	serving, log := newTestSender()
	entry := func(td string) []byte {
		v, ok := log.known[td]
		if !ok {
			return nil
		}
		return fmt.Append(nil, v.Sequence)
	}
	serving.entry = entry
	for td, n := range map[string]uint64{"hub.test": 1, "a.test": 1, "b.test": 2, "c.else": 3, "deep.b.test": 4} {
		log.set(td, versionAt(n))
	}
	now := time.Unix(1_800_000_000, 0)
	next := func() string {
		t.Helper()
		out, again, err := serving.Next(now, 10*time.Second)
		require.NoError(t, err)
		require.Zero(t, again)
		serving.acknowledgeAll(t, out)
		return sentText(t, out)
	}
	number := uint64(1)
	ask := func(m *ententev1.PeerMapSubscription) {
		t.Helper()
		m.Number = number
		if !m.GetMore() {
			number++
		}
		require.NoError(t, serving.Subscribe(m, someTime))
	}
	require.Empty(t, next(), "there is no subscription")
	require.False(t, serving.Active())

	ask(
		&ententev1.PeerMapSubscription{
			TrustDomain: "hub.test",
			Number:      1,
			Include:     []string{".test"},
			Exclude:     []string{"deep.b.test"},
			More:        true,
			Has:         []*ententev1.PeerBundleVersion{versionAt(1).Message("a.test")},
		},
	)
	require.Empty(t, next(), "the subscription is not complete")
	ask(
		&ententev1.PeerMapSubscription{
			TrustDomain: "hub.test",
			Has: []*ententev1.PeerBundleVersion{
				versionAt(9).Message("gone.test"),
				versionAt(9).Message("gone.else"),
			},
		},
	)
	require.Equal(t, "b.test=2 -gone.test complete", next())
	require.Empty(t, next(), "it was sent")
	now = now.Add(6 * time.Second)
	require.Equal(t, "complete", next(), "this is repeated with each heartbeat")

	log.set("a.test", versionAt(2))
	log.set("a.test", versionAt(3))
	log.set("c.else", versionAt(4))
	log.set("deep.b.test", relationship.Version{})
	log.set("b.test", relationship.Version{})
	log.set("hub.test", versionAt(2)) // its own word on itself is not the map's business
	require.Equal(t, "a.test=3 -b.test complete", next())
	require.False(t, log.set("a.test", versionAt(3)), "nothing changed")
	require.Empty(t, next())

	ask(&ententev1.PeerMapSubscription{TrustDomain: "hub.test", Number: 1, Include: []string{"c.else"}})
	require.Equal(t, "c.else=4 complete", next(), "the subscription was replaced")
	ask(&ententev1.PeerMapSubscription{TrustDomain: "hub.test"})
	log.set("c.else", versionAt(5))
	require.Empty(t, next(), "it has unsubscribed")
	require.False(t, serving.Active())
}

// TestMapIsPaced: a large map is sent in messages of bounded size, and within the rate of a peer.
func TestMapIsPaced(t *testing.T) {
	serving, log := newTestSender()
	const domains, size = 10_000, 4 << 10
	for i := range domains {
		log.set(fmt.Sprintf("d%05d.test", i), versionAt(1))
	}
	require.NoError(
		t,
		serving.Subscribe(
			&ententev1.PeerMapSubscription{TrustDomain: "hub.test", Number: 1, Include: []string{".test"}},
			someTime,
		),
	)
	document := make([]byte, size)
	now := time.Unix(1_800_000_000, 0)
	began, sent, bytes := now, 0, 0
	for complete := false; !complete; {
		serving.entry = func(string) []byte { return document }
		out, again, err := serving.Next(now, 10*time.Second)
		require.NoError(t, err)
		require.LessOrEqual(t, len(out), session.MapWindow)
		serving.acknowledgeAll(t, out)
		for _, m := range out {
			sent += len(m.GetMapChanges().GetBundles())
			for range m.GetMapChanges().GetBundles() {
				bytes += size
			}
			require.LessOrEqual(t, len(m.GetMapChanges().GetBundles())*size, maxChangesBytes+size)
			complete = m.GetMapChanges().GetComplete()
		}
		now = now.Add(again)
	}
	require.Equal(t, domains, sent)
	require.Less(
		t,
		float64(bytes-serving.budget.Bytes.Burst())/now.Sub(began).Seconds(),
		1.1*float64(serving.budget.Bytes.Limit()),
		"bytes a second beyond what may come at once",
	)
}

// TestWaitingDomainIsSentOnce: a domain that changes while it waits is in no message twice, which a peer would refuse.
func TestWaitingDomainIsSentOnce(t *testing.T) {
	serving, log := newTestSender()
	for i := range 2000 {
		log.set(fmt.Sprintf("d%05d.test", i), versionAt(1))
	}
	require.NoError(
		t,
		serving.Subscribe(
			&ententev1.PeerMapSubscription{TrustDomain: "hub.test", Number: 1, Include: []string{".test"}},
			time.Unix(1_800_000_000, 0),
		),
	)
	now, told := time.Unix(1_800_000_000, 0), map[string]int{}
	for complete := false; !complete; {
		serving.entry = func(string) []byte { return []byte("{}") }
		out, _, err := serving.Next(now, time.Second)
		require.NoError(t, err)
		for _, m := range out {
			for _, b := range m.GetMapChanges().GetBundles() {
				told[b.GetTrustDomain()]++
			}
			complete = m.GetMapChanges().GetComplete()
		}
		serving.acknowledgeAll(t, out)
		log.set("d01999.test", versionAt(2))
	}
	require.Len(t, told, 2000)
	require.Equal(t, 1, told["d01999.test"])
}

// TestLargeEntriesAreSentAlone: no message exceeds the limit of a peer.
func TestLargeEntriesAreSentAlone(t *testing.T) {
	serving, log := newTestSender()
	for _, td := range []string{"a.test", "b.test", "c.test"} {
		log.set(td, versionAt(1))
	}
	require.NoError(
		t,
		serving.Subscribe(
			&ententev1.PeerMapSubscription{TrustDomain: "hub.test", Number: 1, Include: []string{".test"}},
			someTime,
		),
	)
	var names []string
	for range 2 {
		serving.entry = func(td string) []byte {
			if td == "b.test" {
				return make([]byte, 1<<20)
			}
			return make([]byte, maxChangesBytes-1)
		}
		out, _, err := serving.Next(someTime, time.Second)
		require.NoError(t, err)
		serving.acknowledgeAll(t, out)
		for _, m := range out {
			require.Len(t, m.GetMapChanges().GetBundles(), 1)
			require.LessOrEqual(t, proto.Size(m), session.MaxMessage)
			names = append(names, m.GetMapChanges().GetBundles()[0].GetTrustDomain())
		}
	}
	require.Equal(t, []string{"a.test", "b.test", "c.test"}, names)
}

// TestSubscriptionsRefused: an invalid subscription ends the stream with a named reason.
func TestSubscriptionsRefused(t *testing.T) {
	type subs = []*ententev1.PeerMapSubscription
	has := make([]*ententev1.PeerBundleVersion, bundle.MaxMapDomains+1)
	for i := range has {
		has[i] = versionAt(1).Message(fmt.Sprintf("d%d.test", i))
	}
	long := make([]*ententev1.PeerBundleVersion, 8000) // with names of the greatest length
	for i := range long {
		long[i] = versionAt(1).Message(fmt.Sprintf("%s.%05d.test", strings.Repeat("x", 200), i))
	}
	all, many := []string{".test"}, slices.Repeat([]string{"a.test"}, relationship.MaxHubPatterns+1)
	noVersion := []*ententev1.PeerBundleVersion{{TrustDomain: "a.test", Digest: []byte{1}}}
	last := len(has) - 1
	for name, test := range map[string]struct {
		sent   subs
		reason string
		text   string
	}{
		"no domain": {subs{{TrustDomain: "HUB", Include: all}}, "malformed", `"HUB", which is no trust domain`},
		"no suffix": {
			subs{{TrustDomain: "hub.test", Include: []string{"..test"}}}, "malformed", `"..test"; write`,
		},
		"too many names": {subs{{TrustDomain: "hub.test", Include: many}}, "malformed", "257 names; 256 are the most"},
		"no version": {
			subs{{TrustDomain: "hub.test", Include: all, Has: noVersion}}, "malformed", "a digest of 1 bytes",
		},
		"too many versions": {
			subs{{TrustDomain: "hub.test", Include: all, Has: has}}, "too_many_domains", "are the most",
		},
		"too many in parts": {subs{
			{TrustDomain: "hub.test", Include: all, Has: has[:last], More: true},
			{TrustDomain: "hub.test", Has: has[last:]},
		}, "too_many_domains", "are the most"},
		"too many in all": {subs{
			{TrustDomain: "hub.test", Include: all, Has: long, More: true},
			{TrustDomain: "other.test", Include: all, Has: long, More: true},
		}, "too_many_domains", "takes more than 4194304 bytes"},
		"too long in all": {subs{
			{TrustDomain: "hub.test", Include: all, Has: long}, {TrustDomain: "other.test", Include: all, Has: long},
		}, "too_many_domains", "takes more than 4194304 bytes"},
		"a part of nothing": {subs{{TrustDomain: "hub.test", Has: has[:1]}}, "malformed", "under number 0, after 0"},
		"a part of another": {subs{
			{TrustDomain: "hub.test", Include: all, More: true}, {TrustDomain: "other.test", Has: has[:1]},
		}, "malformed", "the map of other.test under number 1, after 1"},
		"a part too late": {subs{
			{TrustDomain: "hub.test", Include: all}, {TrustDomain: "hub.test", Has: has[:1]},
		}, "malformed", "the map of hub.test under number 1, after 1"},
		"too many": {
			manySubscriptions(peer.MaxMapSubscriptions + 1), "too_many_domains", "by 17 relationships; 16 are the most",
		},
		"the maximum": {manySubscriptions(peer.MaxMapSubscriptions), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			serving, _ := newTestSender()
			number := uint64(0)
			var err error
			for _, m := range test.sent {
				if len(m.GetInclude()) > 0 {
					number++ // else it is a part of the one before
				}
				m.Number = number
				if err = serving.Subscribe(m, someTime); err != nil {
					break
				}
			}
			serving.Close()
			require.True(t, serving.budget.Held.TryAcquire(peer.MaxHeld), "what it held is released")
			if test.reason == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.text)
			require.Equal(t, test.reason, session.ReasonOf(err))
		})
	}
}

// TestEndlessSubscriptions: a peer that subscribes again and again loses its stream, because each subscription is
// compared with the whole map. Another stream has no budget of its own.
func TestEndlessSubscriptions(t *testing.T) {
	first, log := newTestSender()
	second := newSender(first.budget, log, nil)
	for n := range uint64(first.budget.Subscriptions.Burst()) {
		m := &ententev1.PeerMapSubscription{TrustDomain: "hub.test", Number: n + 1, Include: []string{".test"}}
		if n%3 == 1 {
			m.Include = nil
		}
		require.NoError(t, first.Subscribe(m, someTime))
	}
	for _, take := range [][]string{nil, {".test"}} {
		again := &ententev1.PeerMapSubscription{
			TrustDomain: "hub.test",
			Number:      uint64(first.budget.Subscriptions.Burst()) + 1,
			Include:     take,
		}
		require.Equal(t, "flood", session.ReasonOf(first.Subscribe(again, someTime)))
		require.Equal(t, "flood", session.ReasonOf(second.Subscribe(again, someTime)))
	}
	require.NoError(
		t,
		first.Subscribe(
			&ententev1.PeerMapSubscription{
				TrustDomain: "hub.test",
				Number:      uint64(first.budget.Subscriptions.Burst()) + 2,
			},
			someTime.Add(2*time.Second),
		),
	)
}

// TestWaitingChangesAreCounted: a peer that acknowledges nothing cannot make a hub hold every change.
func TestWaitingChangesAreCounted(t *testing.T) {
	serving, log := newTestSender()
	for hub := range uint64(peer.MaxMapSubscriptions) {
		require.NoError(
			t,
			serving.Subscribe(
				&ententev1.PeerMapSubscription{
					TrustDomain: fmt.Sprintf("hub%d.test", hub),
					Number:      hub + 1,
					Include:     []string{".test"},
				},
				someTime,
			),
		)
	}
	next := func() error {
		serving.entry = func(string) []byte { return []byte("{}") }
		_, _, err := serving.Next(someTime, time.Second)
		return err
	}
	require.NoError(t, next())
	for i := range bundle.MaxMapDomains {
		log.set(fmt.Sprintf("d%05d.test", i), versionAt(1))
	}
	err := next()
	require.Equal(t, "lagging", session.ReasonOf(err))
	serving.Close()
	require.True(t, serving.budget.Held.TryAcquire(peer.MaxHeld), "what it held is released")
}

// TestMapIsSentAsFastAsItIsAcknowledged: at most two messages are outstanding, a peer that acknowledges none loses its
// stream, and so does one that acknowledges more than it was sent.
func TestMapIsSentAsFastAsItIsAcknowledged(t *testing.T) {
	serving, log := newTestSender()
	now := someTime
	for i := range 4 * session.MapChangesDomains {
		log.set(fmt.Sprintf("d%05d.test", i), versionAt(1))
	}
	require.NoError(
		t,
		serving.Subscribe(
			&ententev1.PeerMapSubscription{TrustDomain: "hub.test", Number: 7, Include: []string{".test"}},
			now,
		),
	)
	next := func() (out []*ententev1.PeerMessage, err error) {
		serving.entry = func(string) []byte { return []byte("{}") }
		out, again, err := serving.Next(now, 10*time.Second)
		require.Zero(t, again)
		return out, err
	}
	taken := &ententev1.PeerMapAcknowledgement{TrustDomain: "hub.test", Subscription: 7}
	first, err := next()
	require.NoError(t, err)
	require.Len(t, first, session.MapWindow)
	require.EqualValues(t, 7, first[0].GetMapChanges().GetSubscription())
	none, err := next()
	require.NoError(t, err)
	require.Empty(t, none)
	now = now.Add(session.AcknowledgeTimeout)
	require.NoError(t, serving.Acknowledge(taken, now))
	one, err := next()
	require.NoError(t, err)
	require.Len(t, one, 1, "and one more for each that was taken in")
	require.NoError(
		t,
		serving.Acknowledge(&ententev1.PeerMapAcknowledgement{TrustDomain: "hub.test", Subscription: 6}, now),
		"it is of before",
	)
	require.NoError(
		t,
		serving.Acknowledge(&ententev1.PeerMapAcknowledgement{TrustDomain: "other.test", Subscription: 7}, now),
	)
	now = now.Add(session.AcknowledgeTimeout + time.Second)
	_, err = next()
	require.Equal(t, "unacknowledged", session.ReasonOf(err))
	for range session.MapWindow {
		require.NoError(t, serving.Acknowledge(taken, now))
	}
	require.Equal(t, "malformed", session.ReasonOf(serving.Acknowledge(taken, now)))
}

func manySubscriptions(n int) (all []*ententev1.PeerMapSubscription) {
	for i := range n {
		all = append(
			all,
			&ententev1.PeerMapSubscription{TrustDomain: fmt.Sprintf("hub%d.test", i), Include: []string{".test"}},
		)
	}
	return all
}

// TestMapLogForgets: a peer that is further behind than the log reaches loses its stream, rather than missing changes.
func TestMapLogForgets(t *testing.T) {
	serving, log := newTestSender()
	require.NoError(
		t,
		serving.Subscribe(
			&ententev1.PeerMapSubscription{TrustDomain: "hub.test", Number: 1, Include: []string{".test"}},
			someTime,
		),
	)
	for n := range uint64(2 * logSlack) {
		log.set("a.test", versionAt(n))
	}
	require.LessOrEqual(t, len(log.changes), 2+logSlack)
	serving.entry = func(string) []byte { return nil }
	_, _, err := serving.Next(time.Now(), time.Second)
	require.ErrorContains(t, err, "the peer is too far behind the changes of the map")
	require.Equal(t, "lagging", session.ReasonOf(err))
}

// TestUnfinishedSubscriptionIsReplaced: a new subscription replaces one of which parts are missing, and takes nothing
// from it.
func TestUnfinishedSubscriptionIsReplaced(t *testing.T) {
	s, _ := newTestSender()
	subscribe := func(m *ententev1.PeerMapSubscription) {
		t.Helper()
		m.TrustDomain = "hub.test"
		require.NoError(t, s.Subscribe(m, someTime))
	}
	subscribe(&ententev1.PeerMapSubscription{Number: 1, Include: []string{"wide.test"}, More: true})
	subscribe(&ententev1.PeerMapSubscription{Number: 2, Include: []string{"narrow.test"}})
	sub := s.subscriptions["hub.test"]
	require.True(t, sub.ready)
	require.True(t, sub.rules.Covers("narrow.test"))
	require.False(t, sub.rules.Covers("wide.test"))
	subscribe(&ententev1.PeerMapSubscription{Number: 3, Include: []string{"wide.test"}, More: true})
	subscribe(&ententev1.PeerMapSubscription{Number: 4})
	require.False(t, s.Active(), "it was withdrawn")
}
