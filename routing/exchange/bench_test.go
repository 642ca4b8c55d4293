package exchange

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/registry"
	"github.com/ententehq/entente/routing/routingtest"
)

// newBenchMember returns a running member that uses the real time, and has an agreement with every domain.
func newBenchMember(b *testing.B, home string) *member {
	b.Helper()
	m := &member{audit: &routingtest.AuditLog{}}
	m.build(b, everyAgreement{home}, nil)
	m.run(b)
	return m
}

// everyAgreement are agreements with all domains but one. The peer of each is its own home.
type everyAgreement struct{ home string }

func (a everyAgreement) Hosted(_ raftstore.Reader, td string) (bool, error) { return td == a.home, nil }

func (everyAgreement) With(_ raftstore.Reader, td string) (Agreement, bool, error) {
	return Agreement{Since: routingtest.Epoch, InForce: true, Peer: td}, true, nil
}

// BenchmarkExportToPeers measures the time from a change of one of twenty instances until the last of 1,000 peers was
// sent the set.
func BenchmarkExportToPeers(b *testing.B) {
	const peers = 1000
	m := newBenchMember(b, "eu.example.org")
	ctx := access.WithCaller(context.Background(), routingtest.Local)
	for n := range 20 {
		i := routingtest.Registration()
		i.Address = address(n)
		_, err := m.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
		require.NoError(b, err)
	}
	_, err := m.store.Update(ctx, func(tx *raftstore.Tx) error {
		for n := range peers {
			e := serviceExport{
				Service: "shop", Name: "shop", To: fmt.Sprintf("p%d.example.org", n),
				created: routingtest.Epoch, relationshipCreated: routingtest.Epoch,
			}
			if err := exportTable.Put(tx, exportKey(e.To, e.Name), e.row()); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(b, err)
	key := setKey{"eu.example.org", "shop"}
	woken := make(chan *Sync, 16*peers)
	for n := range peers {
		domain := fmt.Sprintf("p%d.example.org", n)
		var s *Sync
		s = m.NewSync(Stream{
			Home: domain, Domains: func() []string { return []string{domain} }, Wake: func() { woken <- s },
		})
		list := &ententev1.PeerServiceSubscription{
			Number: 1,
			Wanted: []*ententev1.PeerServiceVersion{key.version(digest{})},
		}
		require.NoError(b, s.Receive(servicesMessage(&ententev1.PeerServices{Subscription: list})))
		woken <- s
	}
	// send sends what is due, and acknowledges it, until every stream has sent a set.
	send := func() {
		for sent := 0; sent < peers; {
			s := <-woken
			messages, _ := s.Next(time.Now())
			for _, m := range messages {
				for _, set := range m.GetServiceSets().GetSets() {
					require.NoError(b, s.Receive(servicesMessage(&ententev1.PeerServices{
						Acknowledgements: []*ententev1.PeerServiceAcknowledgement{{Version: set.GetVersion()}},
					})))
					sent++
				}
			}
		}
	}
	send()
	i := routingtest.Registration()
	i.Address = address(0)
	b.ResetTimer()
	for n := range b.N {
		i.Weight = uint32(2 + n%1000)
		_, err := m.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
		require.NoError(b, err)
		send()
	}
}

// BenchmarkStoreImport measures the import of 2,000 instances of which one has changed.
func BenchmarkStoreImport(b *testing.B) {
	m := newBenchMember(b, "us.example.org")
	ctx := access.WithCaller(context.Background(), routingtest.Local)
	m.imports(b, "shop", "eu.example.org", "")
	row, _, err := importTable.Get(m.store.View(), registry.ImportKey("shop", "eu.example.org"))
	require.NoError(b, err)
	wanted, err := importFromRow(row)
	require.NoError(b, err)
	list := make([]*ententev1.PeerInstance, maxImportedSet)
	for n := range list {
		list[n] = peerInstanceWith(func(i *ententev1.PeerInstance) { i.Address = address(n) })
	}
	writer := m.syncs.parts.writer
	b.ResetTimer()
	for n := range b.N {
		list[0].Weight = uint32(1 + n%1000)
		set := newExportedSet(setKey{"eu.example.org", "shop"}, false, list)
		instances, err := parseSet(set.key, set.digest, false, list)
		require.NoError(b, err)
		received := receivedSet{key: set.key, digest: set.digest, instances: instances, wanted: wanted}
		outcomes, err := writer.write(ctx, "eu.example.org", []receivedSet{received})
		require.NoError(b, err)
		require.Equal(b, []string{""}, outcomes)
	}
}
