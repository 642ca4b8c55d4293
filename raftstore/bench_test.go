package raftstore_test

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

const (
	benchWriters = 64
	benchRound   = 1024 // operations before the other side has its turn
)

var (
	benchMembers = []string{"m1", "m2", "m3"}
	benchValue   = strings.Repeat("v", 500)
)

// BenchmarkCommit compares, in one run and by turns, how many transactions per second 64 writers commit on a cluster of
// three members, with how many commands of the same bytes 64 writers apply through hashicorp/raft alone, with the same
// log store, settings of it, and sockets; each figure is the median of many short rounds, so that what else the machine
// does weighs little. Each transaction reads a row and writes it: it carries a precondition. The metric ratio is
// Entente's rate over that of Raft alone; the target is 1. In "leader" the writers run on the leader, as Raft alone
// demands; in "members" they run on all three, and two thirds of the transactions are forwarded.
func BenchmarkCommit(b *testing.B) {
	for _, where := range []string{"leader", "members"} {
		b.Run(where, func(b *testing.B) {
			stores := newLoopback(b).form(b, benchMembers)
			if where == "leader" {
				stores = stores[:1]
			}
			entente := func(writer int) error {
				return rewrite(b.Context(), stores[writer%len(stores)], fmt.Sprintf("bench/%02d", writer))
			}
			leader := plainRaft(b, newLoopback(b))
			command := benchCommand(b)
			plain := func(int) error { return leader.Apply(command, 0).Error() }

			b.ResetTimer()
			sides := []func(int) error{plain, entente}
			var rates [2][]float64
			var ratios []float64
			for done := 0; done < b.N; done += benchRound {
				n := min(benchRound, b.N-done)
				var rate [2]float64
				for i := range sides {
					side := (i + done/benchRound) % 2 // neither has the better place
					began := time.Now()
					writeAll(b, n, sides[side])
					rate[side] = float64(n) / time.Since(began).Seconds()
					rates[side] = append(rates[side], rate[side])
				}
				ratios = append(ratios, rate[1]/rate[0])
			}
			b.StopTimer()
			b.ReportMetric(median(rates[0]), "plain/s")
			b.ReportMetric(median(rates[1]), "entente/s")
			b.ReportMetric(median(ratios), "ratio")
		})
	}
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// rewrite is one transaction: it reads a row and writes it.
func rewrite(ctx context.Context, s *raftstore.Store, key string) error {
	_, err := s.Update(ctx, func(tx *raftstore.Tx) error {
		row, _, err := words.Get(tx, key)
		if err != nil {
			return err
		}
		next := byte('a')
		if was := row.Value.GetValue(); was != "" {
			next = 'a' + (was[0]-'a'+1)%26
		}
		return words.Put(tx, key, wrapperspb.String(string(next)+benchValue))
	})
	return err
}

// benchCommand is the log entry of such a transaction.
func benchCommand(b *testing.B) []byte {
	value, err := proto.Marshal(wrapperspb.String("a" + benchValue))
	require.NoError(b, err)
	raw, err := proto.Marshal(&statev1.Command{
		Id:      &statev1.CommandID{Member: "m1@" + strings.Repeat("A", 43), Incarnation: 1, Counter: 100_000},
		Settled: 99_990,
		Kind: &statev1.Command_Transaction{Transaction: &statev1.Transaction{
			Base:    50_000,
			Rows:    []*statev1.RowCondition{{Table: words.Name(), Key: "bench/00", Revision: 50_000}},
			Changes: []*statev1.RowChange{{Table: words.Name(), Key: "bench/00", Value: value}},
		}},
	})
	require.NoError(b, err)
	return raw
}

// writeAll runs n operations, shared between all writers.
func writeAll(b *testing.B, n int, write func(writer int) error) {
	var left atomic.Int64
	left.Store(int64(n))
	var group sync.WaitGroup
	for writer := range benchWriters {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				if err := write(writer); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

// plainRaft forms a cluster of three members of hashicorp/raft alone, and returns the leader.
func plainRaft(b *testing.B, l *loopback) *raft.Raft {
	var servers []raft.Server
	var nodes []*raft.Raft
	for _, member := range benchMembers {
		servers = append(
			servers,
			raft.Server{ID: raft.ServerID(member), Address: raft.ServerAddress(l.raftAddress(member))},
		)
	}
	for _, member := range benchMembers {
		config := raft.DefaultConfig()
		config.LocalID = raft.ServerID(member)
		config.Logger = hclog.NewNullLogger()
		log, err := raftboltdb.New(raftboltdb.Options{
			Path:        filepath.Join(b.TempDir(), "raft.db"),
			BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
		})
		require.NoError(b, err)
		cache, err := raft.NewLogCache(512, log)
		require.NoError(b, err)
		stream, err := newUnixStream(l.raftAddress(member))
		require.NoError(b, err)
		transport := raft.NewNetworkTransportWithLogger(stream, 3, 10*time.Second, hclog.NewNullLogger())
		node, err := raft.NewRaft(config, idle{}, cache, log, raft.NewInmemSnapshotStore(), transport)
		require.NoError(b, err)
		b.Cleanup(func() {
			require.NoError(b, node.Shutdown().Error())
			require.NoError(b, transport.Close())
			require.NoError(b, log.Close())
		})
		nodes = append(nodes, node)
	}
	require.NoError(b, nodes[0].BootstrapCluster(raft.Configuration{Servers: servers}).Error())
	for _, node := range nodes {
		if leads(b, node) {
			return node
		}
	}
	b.Fatal("no leader")
	return nil
}

// leads waits for an election and reports whether node won it.
func leads(b *testing.B, node *raft.Raft) bool {
	elected := make(chan raft.Observation, 16)
	observer := raft.NewObserver(elected, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	node.RegisterObserver(observer)
	defer node.DeregisterObserver(observer)
	for {
		if address, _ := node.LeaderWithID(); address != "" {
			return node.VerifyLeader().Error() == nil
		}
		select {
		case <-elected:
		case <-b.Context().Done():
			b.Fatal("no leader was elected")
		}
	}
}

// idle is a state machine that does nothing: Raft alone.
type idle struct{}

func (idle) Apply(*raft.Log) any                  { return nil }
func (idle) ApplyBatch(logs []*raft.Log) []any    { return make([]any, len(logs)) }
func (idle) Snapshot() (raft.FSMSnapshot, error)  { return idle{}, nil }
func (idle) Restore(r io.ReadCloser) error        { return r.Close() }
func (idle) Persist(sink raft.SnapshotSink) error { return sink.Close() }
func (idle) Release()                             {}

// BenchmarkWatch measures how long after its commit 1,000 watchers on the three members have a change: p99-ms is over
// all watchers and changes, from the moment at which the write returned; the target is 200. A watcher that has it
// before counts as zero.
func BenchmarkWatch(b *testing.B) {
	const watchers = 1000
	stores := newLoopback(b).form(b, benchMembers)
	ctx, cancel := context.WithCancel(b.Context())
	type sight struct {
		revision raftstore.Revision
		at       time.Time
	}
	sights := make(chan sight, watchers)
	var group sync.WaitGroup
	for i := range watchers {
		watch := stores[i%len(stores)].Watch(
			[]raftstore.Prefix{words.Prefix("watched")},
			stores[i%len(stores)].View().Revision(),
		)
		group.Go(func() {
			defer watch.Close()
			for {
				batch, err := watch.Next(ctx)
				if err != nil {
					return
				}
				sights <- sight{batch.Revision, time.Now()}
			}
		})
	}
	var delays []time.Duration
	b.ResetTimer()
	for range b.N {
		require.NoError(b, rewrite(ctx, stores[0], "watched"))
		committed := time.Now()
		for range watchers {
			delays = append(delays, max(0, (<-sights).at.Sub(committed)))
		}
	}
	b.StopTimer()
	cancel()
	group.Wait()
	slices.Sort(delays)
	b.ReportMetric(float64(delays[len(delays)*99/100].Microseconds())/1000, "p99-ms")
}
