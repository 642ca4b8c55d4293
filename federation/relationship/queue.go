package relationship

import (
	"container/heap"
	"time"
)

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
