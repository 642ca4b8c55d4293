package peer

import (
	"context"
	"slices"

	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/raftstore/feed"
)

// Plan schedules the reconciliation of some peers, by their home trust domains. A change of one peer costs nothing for the
// others, however many there are.
func (p *Streams) Plan(homes ...string) {
	if len(homes) > 0 {
		p.due.Add(homes...)
	}
}

// PlanAll schedules the reconciliation of all peers, after the relationships were read.
func (p *Streams) PlanAll() {
	p.mu.Lock()
	p.read = true
	p.mu.Unlock()
	p.due.AddAll()
}

// SetMembers sets the members that share the dialling, and schedules the reconciliation of all peers.
func (p *Streams) SetMembers(members []string) {
	p.plans.setMembers(members)
	p.due.AddAll()
}

// reconcile ends the streams that should not exist, and dials those that should.
func (p *Streams) reconcile(ctx context.Context, due feed.Affected[string]) {
	p.mu.Lock()
	read := p.read
	p.mu.Unlock()
	homes := due.Keys
	if due.All {
		homes = p.known(homes)
	}
	var over, kept []*stream
	for home := range homes {
		plan, named := p.config.PlanOf(home)
		p.mu.Lock()
		p.plans.set(home, plan, named)
		if len(plan.Wanted) > 0 {
			kept = append(kept, p.streams[home]...)
		} else {
			over = append(over, p.streams[home]...)
		}
		if !named {
			p.budgets.forget(home)
		}
		dials := p.dialsLocked(home)
		switch d, dialing := p.dialers[home]; {
		case dialing && !dials:
			d.cancel()
			delete(p.dialers, home)
		case dials && !dialing:
			p.dialers[home] = p.dialLocked(ctx, home)
		}
		p.mu.Unlock()
	}
	if due.All && read {
		p.plans.setRead()
	}
	for _, s := range over {
		s.close(p.terminationNotice(s.session.Home))
	}
	for _, s := range kept {
		s.signal()
		p.yield(s)
	}
	p.reports.forget(p.plans.isNamed)
}

// known adds all peers that relationships name or named, and those that have streams.
func (p *Streams) known(homes map[string]struct{}) map[string]struct{} {
	all := make(map[string]struct{}, len(homes))
	for home := range homes {
		all[home] = struct{}{}
	}
	for _, home := range slices.Concat(p.config.Homes(), p.plans.allNamed()) {
		all[home] = struct{}{}
	}
	for _, s := range p.all() {
		all[s.session.Home] = struct{}{}
	}
	return all
}

// terminationNotice returns the reason for which no stream is kept with a peer any more.
func (p *Streams) terminationNotice(home string) error {
	if p.plans.isNamed(home) {
		return session.Errorf("suspended", "every relationship of %s with this peer is suspended", p.config.Home.Name())
	}
	return session.Errorf("ended", "%s has no relationship any more that names this peer", p.config.Home.Name())
}

// dialsLocked reports whether this member is the one that opens the stream to a peer. p.mu is held.
func (p *Streams) dialsLocked(home string) bool {
	return p.config.Open != nil && !p.draining && p.plans.owns(home)
}

func (p *Streams) dials(home string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dialsLocked(home)
}

// yields reports whether this cluster's own dialling gives way: if both sides dial, the stream of the lower home trust
// domain is kept. Only an existing stream makes the other side give way, so that a dialler that cannot get through has no
// effect.
func (p *Streams) yields(home string) bool {
	if p.config.Home.Name() < home {
		return false
	}
	return slices.ContainsFunc(p.of(home), func(s *stream) bool { return !s.session.Outgoing }) || p.remote.incoming(home)
}

// yield closes a dialled stream if another one is to be kept instead.
func (p *Streams) yield(s *stream) {
	switch home := s.session.Home; {
	case !s.session.Outgoing:
	case p.yields(home):
		s.close(session.Errorf("duplicate", "the stream that %s opened is kept", home))
	case !p.dials(home):
		s.close(session.Errorf("moved", "another member of %s keeps the stream now", p.config.Home.Name()))
	}
}
