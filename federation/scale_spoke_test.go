package federation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/clocktest"
)

// growStreamedSpoke measures a real spoke that has a stream with a real hub, whose other spokes are light peers: the
// cost of their bundles, and how a distrust of one of them arrives.
func growStreamedSpoke(t *testing.T, size int) (g grown) {
	clocktest.Run(t, func(t *testing.T) {
		w := newWorld(t, "entente")
		m := w.grow(oneHub, size-1, true)
		spoke := w.newCluster(simName(size-1), 1)
		before := memory()
		m.real.relate([]link{{other: spoke.home, stream: true, attest: true}})
		spoke.relate([]link{{other: m.real.home, stream: true, dial: true, hub: true}})
		spoke.run()
		for _, p := range m.peers {
			_, err := spoke.knows(t.Context(), p.name(), 1)
			require.NoError(t, err)
		}
		<-time.After(2 * simHint)
		g = grown{size: size, held: memory() - before}

		last := len(m.peers) - 1
		counted, worked, began := spoke.counted.counted(), processorTime(), time.Now()
		m.peers[last].publish(m.homes[last].bundle(t, 2))
		at, err := spoke.knows(t.Context(), m.peers[last].name(), 2)
		require.NoError(t, err)
		g.took = []time.Duration{at.Sub(began)}
		<-time.After(10 * time.Second)
		g.work, g.news = processorTime()-worked, spoke.counted.counted().since(counted).news()
	})
	return g
}
