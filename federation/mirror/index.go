package mirror

import (
	"maps"
	"slices"

	"github.com/ententehq/entente/federation/relationship"
)

// index finds the relationships of a kind without a scan of all. The mirror's lock guards it.
type index struct {
	hubs, agreements NameSet
	// peers are those that name a peer, suspended ones included, by its home trust domain.
	peers map[string]NameSet
}

// maxPlanAddresses bounds the addresses of a peer, over all relationships that name it.
const maxPlanAddresses = 4 * relationship.MaxPeerAddresses

// NameSet is a set of trust domains.
type NameSet map[string]struct{}

func newIndex() index {
	return index{hubs: NameSet{}, agreements: NameSet{}, peers: map[string]NameSet{}}
}

func (i index) add(name string, r *relationship.Relationship) {
	if r.Hub != nil {
		i.hubs[name] = struct{}{}
	}
	if r.Agreement != "" {
		i.agreements[name] = struct{}{}
	}
	if r.Peer != nil {
		home := r.Peer.Home.Name()
		if i.peers[home] == nil {
			i.peers[home] = NameSet{}
		}
		i.peers[home][name] = struct{}{}
	}
}

func (i index) remove(name string, r *relationship.Relationship) {
	delete(i.hubs, name)
	delete(i.agreements, name)
	if r.Peer != nil {
		home := r.Peer.Home.Name()
		delete(i.peers[home], name)
		if len(i.peers[home]) == 0 {
			delete(i.peers, home)
		}
	}
}

// EachHub calls fn for each relationship with a hub, in no order. fn must not call the mirror.
func (c *Mirror) EachHub(fn func(name string, e Entry)) {
	c.eachOf(func(i index) NameSet { return i.hubs }, fn)
}

// EachAgreement calls fn for each relationship with an agreement, in no order. fn must not call the mirror.
func (c *Mirror) EachAgreement(fn func(name string, e Entry)) {
	c.eachOf(func(i index) NameSet { return i.agreements }, fn)
}

func (c *Mirror) eachOf(which func(index) NameSet, fn func(name string, e Entry)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for name := range which(c.index) {
		fn(name, c.entries[name])
	}
}

// Homes returns the home trust domains of all peers that relationships name.
func (c *Mirror) Homes() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Collect(maps.Keys(c.index.peers))
}

// homeOf returns the home trust domain of a relationship's peer, in force or not, or "". c.mu is held.
func (c *Mirror) homeOf(name string) string {
	if e, ok := c.entries[name]; ok && e.Rel.Peer != nil {
		return e.Rel.Peer.Home.Name()
	}
	return ""
}

// PlanOf returns what the relationships in force require of one peer, and whether any names it, in force or not.
func (c *Mirror) PlanOf(home string) (plan relationship.PeerPlan, named bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	plan = relationship.PeerPlan{
		Home:   home,
		Wanted: map[string]relationship.Holding{},
		Hubs:   map[string]*relationship.Relationship{},
	}
	if e, ok := c.entries[home]; ok && e.Rel != nil {
		plan.Route = e.Rel.Route
	}
	for name := range c.index.peers[home] {
		e := c.entries[name]
		if e.PeerHome() == "" {
			continue
		}
		plan.Wanted[name] = e.Holding
		if e.Rel.Hub != nil {
			plan.Hubs[name] = e.Rel
		}
		for _, address := range e.Rel.Peer.Addresses {
			// Relationships are read in no order: the plan has the first addresses by their text, so that it does not
			// change by itself.
			if i, found := slices.BinarySearch(plan.Addresses, address); !found {
				plan.Addresses = slices.Insert(plan.Addresses, i, address)
				plan.Addresses = plan.Addresses[:min(len(plan.Addresses), maxPlanAddresses)]
			}
		}
	}
	return plan, len(c.index.peers[home]) > 0
}
