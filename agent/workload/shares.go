package workload

import "sync"

// Shares bound what all users of the node hold together, such as connections. A user can hold as many as are free for
// everybody: one alone the half, two the half and a quarter. So none of them leaves nothing to the others. It is safe
// for concurrent use.
type Shares struct {
	most int

	mu  sync.Mutex
	all int
	of  map[uint32]int
}

// NewShares returns shares of most things.
func NewShares(most int) *Shares { return &Shares{most: most, of: map[uint32]int{}} }

// Take takes one for a user, and returns the function that gives it back, which is called once. ok is false if the user
// has its share.
func (s *Shares) Take(uid uint32) (release func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[uid] >= s.most-s.all {
		return nil, false
	}
	s.all++
	s.of[uid]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		if s.of[uid]--; s.of[uid] == 0 {
			delete(s.of, uid)
		}
	}, true
}
