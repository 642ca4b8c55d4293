package routing

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ententehq/entente/raftstore"
)

const (
	// strayInterval is how often the leader looks for generations that were staged and never switched to, and strayAfter for how
	// long nothing may have been added to one: who stages adds every moment, and gives up with the call.
	strayInterval = time.Minute
	strayAfter    = 10 * time.Minute
)

// strays is the leader's memory of such generations. A new leader begins with none.
type strays struct {
	looked time.Time
	seen   map[staging]stray
}

// stray is up to which revision rows were added to a generation, and since when that is known.
type stray struct {
	newest raftstore.Revision
	since  time.Time
}

// due takes in which generations there are that do not count, and returns those to which nothing was added for long.
func (s *strays) due(found map[staging]raftstore.Revision, now time.Time) (over []staging) {
	seen := make(map[staging]stray, len(found))
	for of, newest := range found {
		was, known := s.seen[of]
		if !known || was.newest != newest || now.Before(was.since) {
			was = stray{newest, now}
		}
		seen[of] = was
		if now.Sub(was.since) >= strayAfter {
			over = append(over, of)
		}
	}
	s.seen = seen
	slices.SortFunc(over, func(a, b staging) int { return strings.Compare(a.set.in(a.generation), b.set.in(b.generation)) })
	return over
}

// sweepStrays clears away what replacements left whose member died, or lost its leader for good, before they ended.
func (s *sweeper) sweepStrays(ctx context.Context) {
	now := s.now()
	if away := now.Sub(s.strays.looked); away >= 0 && away < strayInterval {
		return
	}
	s.strays.looked = now
	found, err := uncounted(s.store.View())
	if err != nil {
		s.log.Error("the instances cannot be read", "error", err)
		return
	}
	for _, of := range s.strays.due(found, now) {
		rows, err := s.clearGeneration(ctx, of)
		if err != nil {
			s.complain(ctx, "instances of a replacement that did not end stay stored; they do not count", err)
			return
		}
		if rows > 0 {
			s.log.Info("cleared away what a replacement of instances left that did not end", "set", of.set.String(), "rows", rows)
		}
	}
}

// uncounted finds the generations that do not count, each with the revision of its newest row.
func uncounted(r raftstore.Reader) (map[staging]raftstore.Revision, error) {
	found := map[staging]raftstore.Revision{}
	d := decoding{r: r}
	for row, err := range Instances.All(r, "") {
		if err != nil {
			return nil, err
		}
		key, counts, err := d.counts(row.Key)
		if err != nil {
			return nil, err
		}
		if of := (staging{key.set, key.generation}); !counts {
			found[of] = max(found[of], row.Revision)
		}
	}
	return found, nil
}
