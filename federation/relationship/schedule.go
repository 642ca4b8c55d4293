package relationship

import (
	"container/heap"
	"time"
)

const (
	// DefaultMinRefresh is the shortest interval at which a peer is polled, unless configured otherwise.
	DefaultMinRefresh = 10 * time.Second
	// LowestMinRefresh is the lowest value that can be configured.
	LowestMinRefresh = time.Second
	// MaxRefresh is the longest interval at which a peer is polled: a revoked key becomes known within a day.
	MaxRefresh = 24 * time.Hour
	// DefaultRefresh is the interval of a bundle without a refresh hint, as in the SPIFFE federation specification.
	DefaultRefresh = 5 * time.Minute
	// jitter is the part of an interval by which a turn is moved.
	jitter = 0.1
	// TakeoverPace is the interval at which a member starts with relationships that it takes over together, at its
	// start, after the death of a member, or after streams that ended together: at most a hundred handshakes a second.
	TakeoverPace = 10 * time.Millisecond
	// SafetyPoll is how often a bundle is fetched that a stream keeps up to date, so that the endpoint is known to work
	// before it is needed.
	SafetyPoll = time.Hour
	// StoreRetry is how long a fetch waits that this cluster could not store, for example without a leader. The peer is
	// not at fault, so that its turn is not waited for.
	StoreRetry = 10 * time.Second
)

// Interval returns the interval at which a bundle is fetched: the poll interval of its relationship if that is not 0,
// otherwise the bundle's refresh hint, or [DefaultRefresh] without a hint. It lies between least and [MaxRefresh].
func Interval(poll, hint time.Duration, hinted bool, least time.Duration) time.Duration {
	if poll > 0 {
		hint, hinted = poll, true
	}
	if !hinted {
		return max(DefaultRefresh, least)
	}
	return min(max(hint, least), MaxRefresh)
}

// Turn returns the time from an attempt to the next one: the interval with a jitter of a tenth. chance is in [0, 1).
func Turn(interval time.Duration, chance float64) time.Duration {
	return time.Duration(float64(interval) * (1 - jitter + 2*jitter*chance))
}

// Retry returns the time from a failed attempt to the next one: from least, doubled with each further failure, up to
// the interval, at random between the half and the whole. failures is 1 after the first failure; chance is in [0, 1).
func Retry(failures int, interval, least time.Duration, chance float64) time.Duration {
	wait := min(least, interval)
	for ; failures > 1 && wait < interval; failures-- {
		wait = min(2*wait, interval)
	}
	if wait == interval {
		return Turn(interval, chance)
	}
	return time.Duration(float64(wait) * (1 + chance) / 2)
}

// SpreadOut returns the time from the first to the second fetch of a relationship that was taken over together with
// others: at random within the interval, so that they spread. chance is in [0, 1).
func SpreadOut(interval time.Duration, chance float64) time.Duration {
	return time.Duration(float64(interval) * chance)
}

// Pacer starts what is due together one after the other, at TakeoverPace. The first starts at once.
type Pacer struct{ asked, next time.Time }

// After returns when one more may start. A clock that was set back causes no wait.
func (p *Pacer) After(now time.Time) time.Time {
	if now.Before(p.asked) || p.next.Before(now) {
		p.next = now
	}
	at := p.next
	p.asked, p.next = now, at.Add(TakeoverPace)
	return at
}

// Takeover returns when one of count relationships that a member took over together is first fetched. chance is in [0,
// 1).
func Takeover(interval time.Duration, count int, chance float64) time.Duration {
	window := min(interval, time.Duration(count)*TakeoverPace)
	return time.Duration(float64(window) * chance)
}

// Queue holds whose turn comes when. One timer on its head serves any number of relationships. It belongs to one
// goroutine.
type Queue struct {
	turns  turns
	byName map[string]*turn
}

type turn struct {
	name  string
	at    time.Time
	index int
}

// NewQueue returns an empty queue.
func NewQueue() *Queue { return &Queue{byName: make(map[string]*turn)} }

// Set gives name its turn at a time, in place of the one it had.
func (q *Queue) Set(name string, at time.Time) {
	if t, ok := q.byName[name]; ok {
		t.at = at
		heap.Fix(&q.turns, t.index)
		return
	}
	t := &turn{name: name, at: at}
	q.byName[name] = t
	heap.Push(&q.turns, t)
}

// Remove forgets name.
func (q *Queue) Remove(name string) {
	if t, ok := q.byName[name]; ok {
		delete(q.byName, name)
		heap.Remove(&q.turns, t.index)
	}
}

// Due takes out the next name whose turn has come.
func (q *Queue) Due(now time.Time) (string, bool) {
	if len(q.turns) == 0 || q.turns[0].at.After(now) {
		return "", false
	}
	t := heap.Pop(&q.turns).(*turn)
	delete(q.byName, t.name)
	return t.name, true
}

// Next returns when the earliest turn comes.
func (q *Queue) Next() (time.Time, bool) {
	if len(q.turns) == 0 {
		return time.Time{}, false
	}
	return q.turns[0].at, true
}

// turns implements heap.Interface; equal times go by name, so that the order is the same each time.
type turns []*turn

func (t turns) Len() int { return len(t) }

func (t turns) Less(i, j int) bool {
	if t[i].at.Equal(t[j].at) {
		return t[i].name < t[j].name
	}
	return t[i].at.Before(t[j].at)
}

func (t turns) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

func (t *turns) Push(x any) {
	next := x.(*turn)
	next.index = len(*t)
	*t = append(*t, next)
}

func (t *turns) Pop() any {
	last := (*t)[len(*t)-1]
	(*t)[len(*t)-1] = nil
	*t = (*t)[:len(*t)-1]
	return last
}
