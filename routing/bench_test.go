package routing

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/routing/plan"
)

// BenchmarkHint makes hints for a service of 1,000 instances in 30 localities: the plan alone, the hint when nothing changed since
// the last one, and the hint for a place for which none is kept. The targets are 100 µs, and 5 µs when nothing changed.
func BenchmarkHint(b *testing.B) {
	const instances, regions, zones = 1000, 6, 5
	m, err := New(Config{Store: raftstoretest.New(b), Trust: tableTrust{}, Audit: &auditLog{}})
	require.NoError(b, err)
	_, err = m.store.Update(b.Context(), func(tx *raftstore.Tx) error {
		for n := range instances {
			i := Instance{Service: "shop", Reported: plan.Healthy, Endpoint: plan.Endpoint{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 443),
				ID:      spiffeid.RequireFromString("spiffe://eu.example.org/shop"), Weight: 1,
				Locality: plan.Locality{Region: fmt.Sprintf("region-%d", n%regions), Zone: fmt.Sprintf("zone-%d", n/regions%zones)},
			}}
			if err := Instances.Put(tx, i.Key(), i.Row()); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(b, err)
	caller := plan.Locality{Region: "region-1", Zone: "zone-2"}
	now, err := m.scene(m.store.View(), "shop", nil)
	require.NoError(b, err)
	require.Len(b, now.service.instances, instances)

	b.Run("arrange", func(b *testing.B) { // after each change of the service
		endpoints := now.endpoints()
		for b.Loop() {
			now.policy.Arrange(endpoints)
		}
	})
	b.Run("plan", func(b *testing.B) {
		arranged := now.arranged()
		for b.Loop() {
			arranged.Plan(caller)
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		view := m.store.View()
		for b.Loop() {
			if _, err := m.Hint(view, "shop", caller); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("another place", func(b *testing.B) {
		view := m.store.View()
		for b.Loop() {
			clear(m.hints.hints)
			if _, err := m.Hint(view, "shop", caller); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("changed service", func(b *testing.B) {
		view := m.store.View()
		for b.Loop() {
			clear(m.hints.hints)
			now.service.arrangements = plan.Arrangements{}
			if _, err := m.Hint(view, "shop", caller); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode", func(b *testing.B) { // the yardstick: what sending the hint costs at least
		hint, err := m.Hint(m.store.View(), "shop", caller)
		require.NoError(b, err)
		for b.Loop() {
			if _, err := proto.Marshal(hint); err != nil {
				b.Fatal(err)
			}
		}
	})
}
