package federation

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/federation/relationship"
)

var fullScale = flag.Bool(
	"scale",
	false,
	"simulate all sizes of docs/SCALE.md and print its tables; takes about an hour",
)

// scale selects the sizes of each simulation.
type scale struct {
	// meshes are those of a mesh with real clusters alone, and whole of the other topologies; resting those of them
	// that are watched for an hour, and rounds how often one distrusts; large those of one real cluster among light
	// peers; polled and streamed those of a cluster of three whose polls are watched.
	meshes, whole, resting, large, polled, streamed []int
	turns, rounds                                   int
	hint                                            time.Duration
	// found has the results of the parts, for the computed tables.
	found found
}

// TestScaleTables prints the tables of docs/SCALE.md, for small sizes unless -scale is set.
func TestScaleTables(t *testing.T) {
	s := scale{meshes: []int{5}, whole: []int{5}, large: []int{5}, rounds: 1, hint: simHint}
	if *fullScale {
		s = scale{
			meshes: []int{
				10,
				30,
			}, whole: []int{10, 30, 100}, resting: []int{10, 30}, large: []int{10, 30, 100, 300, 1_000, 3_000, 10_000},
			polled: []int{1_000, 10_000}, streamed: []int{1_000, 3_000}, turns: 2, rounds: 5, hint: simHint,
		}
	}
	t.Run("times", s.times)
	t.Run("growth", s.growth)
	t.Run("rest", s.rests)
	t.Run("costs", s.costs)
	t.Run("polls", s.polls)
}

// show prints a row of a table.
func show(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = fmt.Sprint(c)
	}
	_, _ = fmt.Fprintln(os.Stdout, "| "+strings.Join(text, " | ")+" |")
}

func head(title string, cells ...any) {
	_, _ = fmt.Fprintf(os.Stdout, "\n%s\n\n", title)
	show(cells...)
	_, _ = fmt.Fprintln(os.Stdout, "|"+strings.Repeat(" --- |", len(cells)))
}

// span formats a duration.
func span(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.3f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

// bytesText formats a number of bytes.
func bytesText(n int) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d B", n)
	case n < 10_000_000:
		return fmt.Sprintf("%d kB", (n+500)/1_000)
	}
	return fmt.Sprintf("%d MB", (n+500_000)/1_000_000)
}

func ways(streams bool) string {
	if streams {
		return "streams"
	}
	return "polling"
}

// times prints the time until a distrust has reached all clusters, simulated and by the model.
func (s *scale) times(t *testing.T) {
	m := newModel()
	var all []measured
	head("### Time until everybody knows of a distrust", "topology", "by", "clusters", "p50", "p99", "last",
		"how it was found")
	for _, kind := range []topology{mesh, oneHub, twoLevels} {
		for _, streams := range []bool{true, false} {
			row := func(size int, took []time.Duration, how string) {
				show(kind, ways(streams), size, span(quantile(took, 0.5)), span(quantile(took, 0.99)),
					span(took[len(took)-1]), how)
			}
			sizes := s.whole
			if kind == mesh {
				sizes = s.meshes // one of a hundred has 9,900 relationships
			}
			for _, size := range sizes {
				found := measure(t, kind, size, streams, 0, s.rounds)
				all = append(all, found)
				row(size, found.took, "all clusters real")
				if kind != twoLevels && streams { // without chance, the model must be exact
					require.InDelta(t, quantile(m.distrust(kind, size, streams), 1), quantile(found.took, 1),
						float64(10*time.Millisecond))
				}
				runtime.GC()
			}
			for _, size := range s.large {
				row(size, m.rounds(kind, size, streams), "model")
			}
		}
	}
	s.found.whole = all
	head("### What a distrust costs", "topology", "by", "clusters", "origin, messages", "origin, bytes",
		"hub, messages", "hub, bytes", "anybody else, messages", "anybody else, bytes")
	for _, m := range all {
		cells := []any{m.topology, ways(m.streams), m.size}
		for _, r := range []role{origin, hubRole, ordinary} {
			if _, is := m.news[r]; !is {
				cells = append(cells, "–", "–")
				continue
			}
			cells = append(cells, m.news[r].messages, bytesText(m.news[r].bytes))
		}
		show(cells...)
	}
}

// growth prints the costs of one cluster.
func (s *scale) growth(t *testing.T) {
	stream := simPeerMemory(t)
	head(
		"### One cluster among many",
		"clusters",
		"memory a relationship",
		"with a stream",
		"all know of its distrust, p50",
		"last",
		"processor time",
		"messages",
		"bytes",
		"map of a hub",
		"processor time to store one bundle and write the map anew",
		"a spoke's memory a domain",
		"processor time to read a changed map",
		"bytes",
		"a hub's memory a spoke by polling",
		"by streams",
		"a streamed spoke's memory a domain",
		"it knows after",
		"messages",
		"bytes",
	)
	for _, size := range s.large {
		polled, streamed := growMesh(t, size, false), growMesh(t, size, true)
		hub, polledHub := growHub(t, size, true), growHub(t, size, false)
		spoke, near := growSpoke(t, size), growStreamedSpoke(t, size)
		others := int64(size - 1)
		streamed.held -= others * stream
		hub.held -= others * stream
		near.held = max(0, near.held-stream)
		s.found.large = append(s.found.large, grownTogether{polled, streamed, hub, polledHub, spoke, near})
		show(
			size,
			bytesText(int(polled.held/others)),
			bytesText(int(streamed.held/others)),
			span(quantile(streamed.took, 0.5)),
			span(quantile(streamed.took, 1)),
			streamed.work.Round(time.Millisecond),
			streamed.news.messages,
			bytesText(streamed.news.bytes),
			bytesText(hub.mapBytes),
			hub.mapWork.Round(time.Millisecond),
			bytesText(int(spoke.held/others)),
			spoke.work.Round(time.Millisecond),
			bytesText(spoke.news.bytes),
			bytesText(int(polledHub.held/others)),
			bytesText(int(hub.held/others)),
			bytesText(int(near.held/others)),
			span(near.took[0]),
			near.news.messages,
			bytesText(near.news.bytes),
		)
		runtime.GC()
	}
}

// rests prints the traffic while nothing changes.
func (s *scale) rests(t *testing.T) {
	head("### An hour of rest", "topology", "by", "clusters", "hub, messages", "hub, bytes", "anybody else, messages",
		"anybody else, bytes")
	for _, size := range s.resting {
		for _, kind := range []topology{mesh, oneHub, twoLevels} {
			for _, streams := range []bool{true, false} {
				m := measure(t, kind, size, streams, time.Hour, 1)
				s.found.rested = append(s.found.rested, m)
				cells := []any{m.topology, ways(m.streams), m.size}
				for _, r := range []role{hubRole, ordinary} {
					if _, is := m.rest[r]; !is {
						cells = append(cells, "–", "–")
						continue
					}
					cells = append(cells, m.rest[r].messages, bytesText(m.rest[r].bytes))
				}
				show(cells...)
			}
		}
	}
}

// polls prints how a cluster of three spreads its polls.
func (s *scale) polls(t *testing.T) {
	head("### Polls of a cluster of three, in windows of 10 s", "relationships", "by", "while", "polls", "mean", "most",
		"most / mean")
	row := func(f spread, streams bool, while string, p pace) {
		show(f.size-1, ways(streams), while, p.count, fmt.Sprintf("%.1f", p.mean), p.peak,
			fmt.Sprintf("%.1f", p.ratio()))
	}
	for _, streams := range []bool{false, true} {
		sizes := s.polled
		if streams {
			sizes = s.streamed
		}
		for _, size := range sizes {
			f := spreadOf(t, size+1, streams, s.hint, s.turns)
			row(f, streams, "it starts, for two turns", f.start)
			row(f, streams, "nothing happens", f.rest)
			row(f, streams, "another member comes to lead, two turns", f.handover)
			row(f, streams, "the leader dies, one turn", f.death)
			row(f, streams, "after that", f.later)
			show(f.size-1, ways(streams), "streams dialed after the death, in windows of 1 s", f.dialed.count,
				fmt.Sprintf("%.1f", f.dialed.mean), f.dialed.peak, "–")
			shares := fmt.Sprint(f.shares)
			show(f.size-1, ways(streams), "polls of each member, while nothing happens", shares, "–", "–", "–")
			require.Zero(t, f.stale)
			// The takeover pace limits the two survivors, in addition to their own polls.
			allowed := 2*float64(pollWindow/relationship.TakeoverPace) + 2*f.rest.mean
			require.LessOrEqual(t, float64(f.death.peak), max(allowed, float64(size)/2+2*f.rest.mean), "%+v", f)
			if !streams {
				require.Less(t, f.handover.ratio(), 2., "%+v", f)
			}
		}
	}
}
