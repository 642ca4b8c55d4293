package federation

import (
	"context"
	"maps"
	"slices"

	"github.com/ententehq/entente/federation/relationship"
)

// replan is what the reconciler has to look at again. One peer's change costs nothing for the others, however many there are.
type replan struct {
	// all says that the members changed, or that the relationships were read anew.
	all   bool
	homes map[string]bool
	// read says that the relationships were read.
	read bool
}

// plan has the reconciler look at some peers again, by their home trust domains.
func (p *peers) plan(homes ...string) {
	if len(homes) == 0 {
		return
	}
	p.mu.Lock()
	if p.due.homes == nil {
		p.due.homes = map[string]bool{}
	}
	for _, home := range homes {
		p.due.homes[home] = true
	}
	p.mu.Unlock()
	p.wake()
}

// planAll has it look at all of them. read says that the relationships were read, so that what is not known of does not exist.
func (p *peers) planAll(read bool) {
	p.mu.Lock()
	p.due.all, p.due.read = true, p.due.read || read
	p.mu.Unlock()
	p.wake()
}

func (p *peers) wake() {
	select {
	case p.wakes <- struct{}{}:
	default:
	}
}

// takeDue takes out what is due, as home trust domains.
func (p *peers) takeDue() (homes map[string]bool, read bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := p.due
	p.due = replan{}
	if due.homes == nil {
		due.homes = map[string]bool{}
	}
	if due.all {
		for _, home := range p.manager.catalog.Homes() {
			due.homes[home] = true
		}
		for home := range p.named {
			due.homes[home] = true
		}
		for home := range p.streams {
			due.homes[home] = true
		}
	}
	return due.homes, due.read
}

// reconcile ends the streams that should not be, and dials those that should.
func (p *peers) reconcile(ctx context.Context) {
	homes, read := p.takeDue()
	plans, named := map[string]relationship.PeerPlan{}, map[string]bool{}
	for home := range homes {
		plan, is := p.manager.catalog.PlanOf(home)
		if named[home] = is; len(plan.Wanted) > 0 {
			plans[home] = plan
		}
	}
	var over, kept []*stream
	p.mu.Lock()
	p.planned = p.planned || read
	for home := range homes {
		plan, planned := plans[home]
		if planned {
			p.plans[home] = plan
			kept = append(kept, p.streams[home]...)
		} else {
			delete(p.plans, home)
			over = append(over, p.streams[home]...)
		}
		if named[home] {
			p.named[home] = true
		} else {
			delete(p.named, home)
			delete(p.paces, home)
		}
		dials := planned && p.dialsLocked(plan)
		switch d, dialing := p.dialers[home]; {
		case dialing && !dials:
			d.cancel()
			delete(p.dialers, home)
		case dials && !dialing:
			p.dialers[home] = p.dialLocked(ctx, home)
		}
	}
	p.mu.Unlock()
	for _, s := range over {
		s.close(p.farewell(s.session.Home))
	}
	for _, s := range kept {
		s.signal()
		p.yield(s)
	}
	p.reports.forget(func(home string) bool { return p.named[home] }) // nobody else writes that
}

// homes are the peers that relationships in force name; false: these were not read yet.
func (p *peers) homes() ([]string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.plans)), p.planned
}
