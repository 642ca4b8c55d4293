package peer

import (
	"maps"
	"slices"
	"sync"

	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore/membership"
)

// plans holds what the relationships require of each peer.
type plans struct {
	member string

	mu      sync.Mutex
	byHome  map[string]relationship.PeerPlan // of peers with a relationship in force
	named   map[string]bool                  // all peers that relationships name
	members []string
	read    bool
}

func newPlans(member string) *plans {
	return &plans{member: member, byHome: map[string]relationship.PeerPlan{}, named: map[string]bool{}}
}

// of returns the plan for a peer; false if no relationship in force names it.
func (p *plans) of(home string) (relationship.PeerPlan, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	plan, ok := p.byHome[home]
	return plan, ok
}

// set replaces the plan for a peer.
func (p *plans) set(home string, plan relationship.PeerPlan, named bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(plan.Wanted) > 0 {
		p.byHome[home] = plan
	} else {
		delete(p.byHome, home)
	}
	if named {
		p.named[home] = true
	} else {
		delete(p.named, home)
	}
}

// setRead records that the plans reflect all relationships.
func (p *plans) setRead() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read = true
}

// homes returns the peers that relationships in force name; false until the relationships were read.
func (p *plans) homes() ([]string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.byHome)), p.read
}

// none reports whether no relationship in force names a peer.
func (p *plans) none() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.byHome) == 0
}

// isNamed reports whether any relationship names a peer, in force or not.
func (p *plans) isNamed(home string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.named[home]
}

// allNamed returns all peers that relationships name, in force or not.
func (p *plans) allNamed() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.named))
}

// wanted returns the foreign domains that a peer keeps up to date.
func (p *plans) wanted(home string) []string {
	plan, _ := p.of(home)
	return slices.Collect(maps.Keys(plan.Wanted))
}

func (p *plans) setMembers(members []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.members = members
}

// owns reports whether this member is the one that opens the stream to a peer.
func (p *plans) owns(home string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	plan, ok := p.byHome[home]
	return ok && len(plan.Addresses) > 0 && len(p.members) > 0 && membership.Owner(home, p.members) == p.member
}
