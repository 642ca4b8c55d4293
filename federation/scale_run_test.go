package federation

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/trust"
)

// errNoLeader is returned by a query of the leader while there is none.
var errNoLeader = errors.New("no member leads")

// Query queries the leader's memory, as a member does over the heartbeats' connection.
func (m *simMember) Query(_ context.Context, section string, query []byte) ([]byte, error) {
	m.cluster.mu.Lock()
	leader := m.cluster.leader
	m.cluster.mu.Unlock()
	if leader == nil {
		return nil, errNoLeader
	}
	if section == peer.Section {
		return leader.manager.streams.Reports().Answer(query)
	}
	return leader.manager.Section().Answer(query)
}

// run runs all members until the test of the bubble ends, or each member is stopped.
func (c *cluster) run() {
	for _, m := range c.members {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- m.manager.Run(ctx) }()
		m.stop = sync.OnceFunc(func() {
			cancel()
			require.NoError(c.w.t, <-ended)
		})
		c.w.t.Cleanup(m.stop)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { c.beat(ctx) })
	work.Go(func() { c.render(ctx) })
	c.w.t.Cleanup(func() {
		cancel()
		work.Wait()
	})
}

// beat simulates heartbeats: the reports of each member reach the leader within a second.
func (c *cluster) beat(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		c.mu.Lock()
		members, was := c.members, c.leader
		c.leader = nil
		for _, m := range members {
			if m.store.IsLeader() {
				c.leader = m
			}
		}
		is := c.leader
		c.mu.Unlock()
		if is != nil {
			if is != was {
				is.manager.Section().Reset()
				is.manager.streams.Reports().Reset()
			}
			for _, m := range members {
				if report := m.manager.Section().Collect(is != was); report != nil {
					is.manager.Section().Deliver(m.id, report)
				}
				if report := m.manager.streams.Reports().Collect(is != was); report != nil {
					is.manager.streams.Reports().Deliver(m.id, report)
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// render updates the documents of the endpoint, as node does from the same tables.
func (c *cluster) render(ctx context.Context) {
	over := []raftstore.Prefix{federationtest.HostedBundles.Prefix("")}
	if c.hub {
		over = append(over, relationship.Relationships.Prefix(""), relationship.ForeignBundles.Prefix(""))
	}
	for ctx.Err() == nil {
		m := c.first()
		_ = feed.Latest(ctx, m.store, over, func(v *raftstore.View) error {
			p := endpoint.Publication{Home: c.home.td}
			for row, err := range federationtest.HostedBundles.All(v, "") {
				require.NoError(c.w.t, err)
				b, err := trust.Parse(row.Value)
				require.NoError(c.w.t, err)
				p.Hosted = append(p.Hosted, endpoint.Hosted{Bundle: b})
			}
			if c.hub {
				p.Attested = c.mapEntries(v)
			}
			require.NoError(c.w.t, c.handler.Publish(p))
			return nil
		})
	}
}

// mapEntries returns the entries of other clusters in the map of the hub.
func (c *cluster) mapEntries(v *raftstore.View) (all []bundle.MapEntry) {
	for row, err := range relationship.Relationships.All(v, "") {
		require.NoError(c.w.t, err)
		stored, found, err := relationship.ForeignBundles.Get(v, row.Key)
		require.NoError(c.w.t, err)
		if !found || !relationship.Attested(row.Value) {
			continue
		}
		once := c.vouched[row.Key]
		if once.revision != stored.Revision {
			b, err := trust.Parse(stored.Value)
			require.NoError(c.w.t, err)
			once.revision = stored.Revision
			once.vouched, err = bundle.NewMapEntry(b)
			require.NoError(c.w.t, err)
			c.vouched[row.Key] = once
		}
		all = append(all, once.vouched)
	}
	return all
}

// knows returns when the cluster has stored a sequence of a domain's bundle, from any source.
func (c *cluster) knows(ctx context.Context, td string, sequence uint64) (time.Time, error) {
	var at time.Time
	err := feed.Latest(
		ctx,
		c.first().store,
		[]raftstore.Prefix{relationship.ForeignBundles.Prefix(td), relationship.HubBundles.Prefix(td + "/")},
		func(v *raftstore.View) error {
			var b *bundle.Bundle
			if row, found, err := relationship.ForeignBundles.Get(v, td); err != nil {
				return err
			} else if found {
				if b, err = trust.Parse(row.Value); err != nil {
					return err
				}
			} else if word, found, err := relationship.TrustSource().Attest(v, td); err != nil {
				return err
			} else if found {
				if b, err = relationship.HubBundle(word.Row.Value); err != nil {
					return err
				}
			}
			if b == nil {
				return nil
			}
			if n, _ := b.Sequence(); n >= sequence {
				at = time.Now()
				return errSeen
			}
			return nil
		},
	)
	if errors.Is(err, errSeen) {
		err = nil
	}
	return at, err
}

// streams counts the peers with which any member has an open stream.
func (c *cluster) streams() int {
	c.mu.Lock()
	members := c.members
	c.mu.Unlock()
	open := map[string]bool{}
	for _, m := range members {
		for _, home := range m.manager.catalog.Homes() {
			if !open[home] && m.manager.streams.Covers(home, home) {
				open[home] = true
			}
		}
	}
	return len(open)
}
