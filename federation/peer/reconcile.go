package peer

import (
	"context"
	"slices"

	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore/feed"
)

// Plan schedules the reconciliation of some peers, by their home trust domains. A change of one peer costs nothing for
// the others, however many there are.
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

// reconciler decides which streams there are: it opens and closes those of a peer after every change. One goroutine
// calls reconcile.
type reconciler struct {
	streams *Streams
	// dialers, by the peer's home trust domain, and dialing are guarded by the mutex of streams.
	dialers map[string]*dialer
	dialing relationship.Pacer
}

// stopLocked stops all dialling. The mutex of streams is held.
func (r *reconciler) stopLocked() {
	for home, d := range r.dialers {
		d.cancel()
		delete(r.dialers, home)
	}
}

// reconcile ends the streams that should not exist, and dials those that should.
func (r *reconciler) reconcile(ctx context.Context, due feed.Affected[string]) {
	r.streams.mu.Lock()
	read := r.streams.read
	r.streams.mu.Unlock()
	homes := due.Keys
	if due.All {
		homes = r.known(homes)
	}
	var over, kept []*stream
	for home := range homes {
		plan, named := r.streams.config.PlanOf(home)
		r.streams.mu.Lock()
		r.streams.plans.set(home, plan, named)
		if len(plan.Wanted) > 0 {
			kept = append(kept, r.streams.streams[home]...)
		} else {
			over = append(over, r.streams.streams[home]...)
		}
		if !named {
			r.streams.budgets.forget(home)
		}
		dials := r.dialsLocked(home)
		switch d, dialing := r.dialers[home]; {
		case dialing && !dials:
			d.cancel()
			delete(r.dialers, home)
		case dials && !dialing:
			r.dialers[home] = r.dialLocked(ctx, home)
		}
		r.streams.mu.Unlock()
	}
	if due.All && read {
		r.streams.plans.setRead()
	}
	for _, s := range over {
		s.close(r.terminationNotice(s.session.Home))
	}
	for _, s := range kept {
		s.signal()
		r.yield(s)
	}
	r.streams.reports.forget(r.streams.plans.isNamed)
}

// known adds all peers that relationships name or named, and those that have streams.
func (r *reconciler) known(homes map[string]struct{}) map[string]struct{} {
	all := make(map[string]struct{}, len(homes))
	for home := range homes {
		all[home] = struct{}{}
	}
	for _, home := range slices.Concat(r.streams.config.Homes(), r.streams.plans.allNamed()) {
		all[home] = struct{}{}
	}
	for _, s := range r.streams.all() {
		all[s.session.Home] = struct{}{}
	}
	return all
}

// terminationNotice returns the reason for which no stream is kept with a peer any more.
func (r *reconciler) terminationNotice(home string) error {
	if r.streams.plans.isNamed(home) {
		return session.Errorf(
			"suspended",
			"every relationship of %s with this peer is suspended",
			r.streams.config.Home.Name(),
		)
	}
	return session.Errorf("ended", "%s has no relationship any more that names this peer", r.streams.config.Home.Name())
}

// dialsLocked reports whether this member is the one that opens the stream to a peer. r.streams.mu is held.
func (r *reconciler) dialsLocked(home string) bool {
	return r.streams.config.Open != nil && !r.streams.draining && r.streams.plans.owns(home)
}

func (r *reconciler) dials(home string) bool {
	r.streams.mu.Lock()
	defer r.streams.mu.Unlock()
	return r.dialsLocked(home)
}

// yields reports whether this cluster's own dialling gives way: if both sides dial, the stream of the lower home trust
// domain is kept. Only an existing stream makes the other side give way, so that a dialler that cannot get through has
// no effect.
func (r *reconciler) yields(home string) bool {
	if r.streams.config.Home.Name() < home {
		return false
	}
	return slices.ContainsFunc(r.streams.of(home), func(s *stream) bool { return !s.session.Outgoing }) ||
		r.streams.remote.incoming(home)
}

// yield closes a dialled stream if another one is to be kept instead.
func (r *reconciler) yield(s *stream) {
	switch home := s.session.Home; {
	case !s.session.Outgoing:
	case r.yields(home):
		s.close(session.Errorf("duplicate", "the stream that %s opened is kept", home))
	case !r.dials(home):
		s.close(session.Errorf("moved", "another member of %s keeps the stream now", r.streams.config.Home.Name()))
	}
}
