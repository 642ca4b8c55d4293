package disk

import (
	"slices"
	"time"
)

const (
	// sampled is how far back the median of the writes reaches.
	sampled = 10 * time.Second
	// maxSamples bounds the writes that are remembered. A disk with more in ten seconds is not slow.
	maxSamples = 256
)

// samples are how long the latest writes took.
type samples struct {
	ring [maxSamples]sample
	next int
}

type sample struct {
	at   time.Time
	took time.Duration
}

func (s *samples) add(at time.Time, took time.Duration) {
	s.ring[s.next] = sample{at: at, took: took}
	s.next = (s.next + 1) % maxSamples
}

// since reports whether there was a write after a time.
func (s *samples) since(t time.Time) bool {
	return s.ring[(s.next+maxSamples-1)%maxSamples].at.After(t)
}

// median returns the median of the writes that ended within [sampled] before now, and of one that runs, if it does.
func (s *samples) median(now time.Time, running time.Duration) time.Duration {
	var took []time.Duration
	for _, x := range s.ring {
		if !x.at.IsZero() && now.Sub(x.at) <= sampled {
			took = append(took, x.took)
		}
	}
	if running > 0 {
		took = append(took, running)
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)/2]
}
