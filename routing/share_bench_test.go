package routing

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// sharing is a manager for benchmarks, by the real clock, with agreements with any domain.
func sharing(b *testing.B, home string) *Manager {
	b.Helper()
	m, err := New(Config{Store: raftstoretest.New(b), Trust: tableTrust{}, Audit: &auditLog{}, Agreements: everyAgreement{home}})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	return m
}

// everyAgreement has one with each domain but its own; the domain is its peer's home.
type everyAgreement struct{ home string }

func (a everyAgreement) Hosted(_ raftstore.Reader, td string) (bool, error) { return td == a.home, nil }

func (everyAgreement) With(_ raftstore.Reader, td string) (Agreement, bool, error) {
	return Agreement{Since: epoch, InForce: true, Peer: td}, true, nil
}

func benchContext() context.Context {
	return access.WithCaller(context.Background(), access.SocketCaller(0, 1))
}

// BenchmarkExportToPeers is the time from a change of one instance of twenty to the last of 1,000 peers having been given the set.
func BenchmarkExportToPeers(b *testing.B) {
	const peers = 1000
	m, ctx := sharing(b, "eu.example.org"), benchContext()
	s := NewServer(m)
	for n := range 20 {
		i := registration()
		i.Address = address(n)
		_, err := s.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
		require.NoError(b, err)
	}
	_, err := m.store.Update(ctx, func(tx *raftstore.Tx) error {
		for n := range peers {
			e := Export{Service: "shop", Name: "shop", To: fmt.Sprintf("p%d.example.org", n), created: epoch, agreed: epoch}
			if err := Exports.Put(tx, exportKey(e.To, e.Name), e.row()); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(b, err)
	key := sharedKey{"eu.example.org", "shop"}
	streams := make([]*Freight, peers)
	woken := make(chan *Freight, 16*peers)
	for n := range streams {
		domain := fmt.Sprintf("p%d.example.org", n)
		var f *Freight
		f = m.Carry(PeerStream{Home: domain, Domains: func() []string { return []string{domain} }, Wake: func() { woken <- f }})
		streams[n] = f
		require.NoError(b, f.Take(&ententev1.PeerMessage{Content: &ententev1.PeerMessage_Services{Services: &ententev1.PeerServices{
			Interest: &ententev1.PeerServiceInterest{Number: 1, Wanted: []*ententev1.PeerServiceVersion{key.version(digest{})}},
		}}}))
		woken <- f
	}
	// carry sends what is to be sent until every stream has brought a set, and answers for it.
	carry := func() {
		for brought := 0; brought < peers; {
			f := <-woken
			out, _ := f.Next(time.Now())
			for _, message := range out {
				for _, set := range message.GetServiceSets().GetSets() {
					require.NoError(b, f.Take(&ententev1.PeerMessage{Content: &ententev1.PeerMessage_Services{Services: &ententev1.PeerServices{
						Acknowledgements: []*ententev1.PeerServiceAcknowledgement{{Version: set.GetVersion()}},
					}}}))
					brought++
				}
			}
		}
	}
	carry()
	i := registration()
	i.Address = address(0)
	b.ResetTimer()
	for n := range b.N {
		i.Weight = uint32(2 + n%1000)
		_, err := s.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
		require.NoError(b, err)
		carry()
	}
}

// BenchmarkStoreArrivals is one import of 2,000 instances of which one has changed.
func BenchmarkStoreArrivals(b *testing.B) {
	m, ctx := sharing(b, "us.example.org"), benchContext()
	made, err := NewServer(m).ImportService(ctx, &ententev1.ImportServiceRequest{Import: &ententev1.ServiceImport{Name: "shop", From: "eu.example.org"}})
	require.NoError(b, err)
	row, _, err := Imports.Get(m.store.View(), importKey(made.GetService(), made.GetFrom()))
	require.NoError(b, err)
	of, err := importFromRow(row)
	require.NoError(b, err)
	list := make([]*ententev1.PeerInstance, maxImportedSet)
	for n := range list {
		list[n] = peerInstance(func(i *ententev1.PeerInstance) { i.Address = address(n) })
	}
	b.ResetTimer()
	for n := range b.N {
		list[0].Weight = uint32(1 + n%1000)
		set := newSharedSet(sharedKey{"eu.example.org", "shop"}, false, list)
		instances, err := readSet(set.key, set.digest, false, list)
		require.NoError(b, err)
		outcomes, err := m.storeArrivals(ctx, "eu.example.org", []arrival{{key: set.key, digest: set.digest, instances: instances, of: of}})
		require.NoError(b, err)
		require.Equal(b, []string{""}, outcomes)
	}
}
