package federation

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// manyRelationships is the number of relationships that a cluster supports.
const manyRelationships = 10_000

// fill stores relationships whose peers refuse connections, each with a bundle of its own.
func fill(b *testing.B, s *raftstore.Store, all []string) {
	b.Helper()
	const together = 100
	for len(all) > 0 {
		some := all[:min(together, len(all))]
		all = all[len(some):]
		rows := make([]*statev1.Bundle, len(some))
		for i, name := range some {
			a := federationtest.NewAuthority(b, name).Every(5 * time.Minute)
			rows[i] = a.Bundle(b, 1, a.Rotated(b)).Row(time.Now())
		}
		_, err := s.Update(context.Background(), func(tx *raftstore.Tx) error {
			for i, name := range some {
				id := rows[i].GetTrustDomain()
				if err := relationship.Relationships.Put(tx, name, &statev1.Relationship{
					TrustDomain: name, Url: "https://127.0.0.1:1/", Profile: federationtest.SpiffeProfile,
					EndpointSpiffeId: "spiffe://" + id + "/entente/bundle-endpoint", Generation: 1,
				}); err != nil {
					return err
				}
				if err := relationship.ForeignBundles.Put(tx, name, rows[i]); err != nil {
					return err
				}
			}
			return nil
		})
		require.NoError(b, err)
	}
}

// BenchmarkRestart measures the time from opening the store of a member with ten thousand foreign bundles until the
// fetch of each is scheduled, and the memory of the process then. The targets are 10 s and 512 MiB.
func BenchmarkRestart(b *testing.B) {
	c := raftstoretest.NewCluster(b, 1)
	fill(b, c.Store(0), federationtest.Names(manyRelationships, "example.org"))
	federationtest.MarkAlive(b, c.Store(0), "member-1")
	for b.Loop() {
		c.Kill(0)
		runtime.GC()
		began := time.Now()
		c.Restart(0)
		raftstoretest.AwaitLeadership(b, c.Store(0))
		opened := time.Since(began)
		r := newRoomOn(b, c.Store(0))
		stop := r.run(b)
		ticker := time.NewTicker(time.Millisecond)
		for federationtest.Metric(b, r.registry, "entente_federation_polls_owned") < manyRelationships {
			<-ticker.C
		}
		ticker.Stop()
		b.ReportMetric(opened.Seconds(), "s/open")
		b.ReportMetric(time.Since(began).Seconds(), "s/restart")
		var memory runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&memory)
		b.ReportMetric(float64(memory.HeapAlloc)/(1<<20), "MiB-live")
		b.ReportMetric(float64(memory.Sys)/(1<<20), "MiB-process")
		stop()
	}
}

// BenchmarkTransitions measures one pass of the leader over ten thousand relationships without reports.
func BenchmarkTransitions(b *testing.B) {
	r := newRoom(b)
	fill(b, r.store, federationtest.Names(manyRelationships, "example.org"))
	require.NoError(b, r.manager.catalog.Load(r.store.View(), func(err error) { b.Error(err) }))
	r.manager.freshness.commit(context.Background(), r.manager.freshness.queue(time.Now()).judge())
	require.NoError(b, r.manager.catalog.Load(r.store.View(), func(err error) { b.Error(err) }))
	judged := r.manager.freshness.queue(time.Now())
	for b.Loop() {
		if found := judged.judge(); len(found) != 0 {
			b.Fatal(len(found))
		}
	}
}

// BenchmarkRefresh measures a fetch of an unchanged bundle over TLS on loopback, both ends.
func BenchmarkRefresh(b *testing.B) {
	r := newRoom(b, func(c *Config) { c.Client = endpoint.ClientConfig{} })
	us := federationtest.NewAuthority(b, "us.example.org")
	p := federationtest.NewEndpoint(b, us, us.Bundle(b, 1))
	r.create(b, spiffeRelationship(us, p), us.Bundle(b, 1))
	for b.Loop() {
		if out := r.manager.poller.Refresh(context.Background(), "us.example.org"); out.Err != nil {
			b.Fatal(out.Err)
		}
	}
}
