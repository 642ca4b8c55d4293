package table_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
)

// simulation is a cluster that consists of the rules alone: members carry out what plan.Next returns, at the time that
// it returns, on rows without certificates. Each member and the leader have a clock of their own.
type simulation struct {
	start, now time.Time
	settings   plan.Settings
	grace      time.Duration
	rotations  plan.Rotations
	// upstream is true if X.509 authorities are below one root of an upstream.
	upstream bool
	// lead is who leads if it is there; else the first one is.
	lead    string
	members []*simulated
	// anchors are those that were revoked.
	anchors map[string]bool
	rows    []*statev1.Authority
	log     func(string)
	// broken are the promises that were not kept.
	broken []string
	// needed are what verifies SVIDs that are alive, and until when.
	needed map[string]time.Time
	// known is when everybody knows a verifier that is in the bundle.
	known map[string]time.Time
}

type simulated struct {
	name    string
	skew    time.Duration
	asleep  bool
	removed bool
	lost    map[string]bool   // keys
	made    int               // roots
	keys    map[plan.Kind]int // keys made
}

func newSimulation(settings plan.Settings) *simulation {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	return &simulation{
		start: start, now: start, settings: settings, grace: plan.DefaultSigningGrace, log: func(string) {},
		needed: map[string]time.Time{}, known: map[string]time.Time{}, anchors: map[string]bool{},
	}
}

func (s *simulation) member(name string) *simulated {
	for _, m := range s.members {
		if m.name == name {
			return m
		}
	}
	m := &simulated{name: name, lost: map[string]bool{}, keys: map[plan.Kind]int{}}
	s.members = append(s.members, m)
	return m
}

func (s *simulation) situation(m *simulated) plan.Situation {
	return plan.Situation{
		Now: s.now.Add(m.skew), Member: m.name, Settings: s.settings, Grace: s.grace, Rotations: s.rotations,
		Authorities: s.all(), Keyless: func(id string) bool { return m.lost[id] },
	}
}

// verifier returns the name of what has to be in the bundle for a row.
func verifier(row *statev1.Authority) string {
	if len(row.GetAnchors()) > 0 {
		return string(row.GetAnchors()[0])
	}
	return row.GetId()
}

// settle has all members act until none has anything to do, and returns the time of the next action.
func (s *simulation) settle() (next time.Time) {
	for range 100 {
		acted := false
		next = plan.Never
		for _, m := range s.members {
			if m.asleep || m.removed || !s.sane(m) {
				continue
			}
			situation := s.situation(m)
			actions, at := plan.Next(situation)
			if !at.Equal(plan.Never) {
				next = plan.Sooner(next, at.Add(-m.skew))
			}
			for _, a := range actions {
				s.act(m.name, situation.Now, a, m)
			}
			acted = acted || len(actions) > 0
		}
		if leader := s.leader(); leader != nil && s.sane(leader) {
			actions, at := plan.ForLost(s.now.Add(leader.skew), s.situation(leader).Authorities, s.names(), s.grace)
			if !at.Equal(plan.Never) {
				next = plan.Sooner(next, at.Add(-leader.skew))
			}
			for _, a := range actions {
				s.act(leader.name+" (leader)", s.now.Add(leader.skew), a, leader)
			}
			acted = acted || len(actions) > 0
		}
		s.check()
		if !acted {
			return next
		}
	}
	s.broken = append(s.broken, "the members do not come to rest")
	return plan.Never
}

// sane reports whether a clock is within five minutes of those of a majority.
func (s *simulation) sane(m *simulated) bool {
	near, all := 0, 0
	for _, other := range s.members {
		if other.asleep || other.removed {
			continue
		}
		all++
		if (other.skew - m.skew).Abs() <= plan.ClockTolerance {
			near++
		}
	}
	return near > all/2
}

func (s *simulation) leader() *simulated {
	for _, m := range s.members {
		if m.name == s.lead && !m.asleep && !m.removed {
			return m
		}
	}
	for _, m := range s.members {
		if !m.asleep && !m.removed {
			return m
		}
	}
	return nil
}

func (s *simulation) names() []string {
	var names []string
	for _, m := range s.members {
		if !m.removed {
			names = append(names, m.name)
		}
	}
	return names
}

// act does what a transaction does.
func (s *simulation) act(who string, now time.Time, a plan.Action, m *simulated) {
	if a.Do == plan.Prepare {
		row := &statev1.Authority{
			Kind: statev1.AuthorityKind(a.Kind), State: statev1.AuthorityState_AUTHORITY_STATE_PREPARED, Member: m.name,
			NotBefore: timestamppb.New(now.Add(-svid.Backdate)), NotAfter: timestamppb.New(now.Add(s.settings.CATTL)),
		}
		if a.Kind == plan.X509 {
			if m.made == 0 || a.NewAnchor || s.anchors[fmt.Sprintf("%s root %d", m.name, m.made)] {
				m.made++
			}
			row.Anchors = [][]byte{fmt.Appendf(nil, "%s root %d", m.name, m.made)}
			if s.upstream {
				row.Anchors, row.UpstreamAnchor = [][]byte{[]byte("the root")}, true
			}
		}
		row = table.Complete(row, s.rows, s.situation(m), a, a.NewAnchor)
		m.keys[a.Kind]++
		row.Id = fmt.Sprintf("%s/%s/%d", m.name, a.Kind, m.keys[a.Kind])
		a.ID = row.Id
		s.rows = append(s.rows, row)
	} else {
		i := slices.IndexFunc(s.rows, func(r *statev1.Authority) bool { return r.GetId() == a.ID })
		if i < 0 {
			s.broken = append(s.broken, fmt.Sprintf("%s %s, which is not there", a.Do, a.ID))
			return
		}
		s.others(m, s.rows[i], a)
		if a.Do == plan.End {
			s.rows = slices.Delete(s.rows, i, i+1)
		} else if err := table.Transition(s.rows[i], a.Do, s.settings, now); err != nil {
			s.broken = append(s.broken, err.Error())
		}
		switch a.Do {
		case plan.Activate:
			s.activated(s.rows[i], a)
		case plan.Revoke:
			s.revoked(s.rows[i])
		}
	}
	alarm := ""
	if a.Alarm {
		alarm = " ALARM"
	}
	anchor := ""
	if a.NewAnchor {
		anchor = " with a new anchor"
	}
	if a.Held {
		anchor += " in reserve"
	}
	s.log(fmt.Sprintf("%s  %s: %s %s%s: %s%s", s.clock(s.now), who, a.Do, a.ID, anchor, a.Why, alarm))
}

// activated checks an activation against the rule of publication.
func (s *simulation) activated(row *statev1.Authority, a plan.Action) {
	if a.Alarm || a.Why == "an operator activated it" {
		return
	}
	for _, other := range s.rows {
		if other != row && other.GetKind() == row.GetKind() && plan.State(other.GetState()) == plan.Active &&
			s.alive(other) {
			if known := s.known[verifier(row)]; s.now.Before(known) {
				s.broken = append(
					s.broken,
					fmt.Sprintf("%s signs at %s, and %s is known at %s", row.GetId(), s.clock(s.now), verifier(row),
						s.clock(known)),
				)
			}
			return
		}
	}
}

// alive reports whether the authority's member can sign and has its key, and the authority is valid.
func (s *simulation) alive(row *statev1.Authority) bool {
	m := s.member(row.GetMember())
	return !m.asleep && !m.removed && s.sane(m) && !m.lost[row.GetId()] &&
		s.now.Add(m.skew).Before(table.TimeOf(row.GetNotAfter()))
}

// check checks the guarantees of package authority.
func (s *simulation) check() {
	present := map[string]bool{}
	for _, row := range s.rows {
		if publishes(row) {
			present[verifier(row)] = true
		}
	}
	for v := range s.known {
		if !present[v] {
			delete(s.known, v)
		}
	}
	for v := range present {
		if _, ok := s.known[v]; !ok {
			s.known[v] = s.now.Add(s.settings.Dissemination(s.now))
		}
	}
	for v, until := range s.needed {
		switch {
		case !s.now.Before(until):
			delete(s.needed, v)
		case !present[v]:
			s.broken = append(
				s.broken,
				fmt.Sprintf("at %s: %s left the bundle, and SVIDs that it verifies live until %s", s.clock(s.now), v,
					s.clock(until)),
			)
			delete(s.needed, v)
		}
	}
}

// signs has every active authority sign an SVID of full length.
func (s *simulation) signs() {
	for _, row := range s.rows {
		if plan.State(row.GetState()) != plan.Active || !s.alive(row) {
			continue
		}
		kind := plan.Kind(row.GetKind())
		until := s.now.Add(s.settings.SVIDTTL(kind))
		if end := table.TimeOf(row.GetNotAfter()).Add(-s.member(row.GetMember()).skew); end.Before(until) {
			until = end
		}
		if v := verifier(row); until.After(s.needed[v]) {
			s.needed[v] = until
		}
	}
}

// signable reports whether a member can sign now.
func (s *simulation) signable(kind plan.Kind) bool {
	return slices.ContainsFunc(s.rows, func(row *statev1.Authority) bool {
		return plan.Kind(row.GetKind()) == kind && plan.State(row.GetState()) == plan.Active && s.alive(row)
	})
}

// run advances the clock, from one relevant time to the next.
func (s *simulation) run(d time.Duration) {
	end := s.now.Add(d)
	for {
		next := s.settle()
		s.signs()
		if next.Equal(plan.Never) || !next.Before(end) {
			s.now = end
			s.settle()
			s.signs()
			return
		}
		if !next.After(s.now) {
			s.broken = append(s.broken, "a plan names a moment that has passed as the next one")
			return
		}
		// A moment before what happens next everything signs once more: this is where a rule would cut it short.
		s.now = next.Add(-time.Nanosecond)
		s.signs()
		s.now = next
	}
}

func (s *simulation) clock(t time.Time) string {
	d := t.Sub(s.start).Truncate(time.Second)
	return fmt.Sprintf("%02d:%02d:%02d", int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60)
}

// show lists the authorities with what each waits for.
func (s *simulation) show() string {
	var b strings.Builder
	for _, row := range s.rows {
		a := table.AuthorityOf(row)
		situation := s.situation(s.member(a.Member))
		at, waits := plan.Wait(situation, a)
		fmt.Fprintf(&b, "  %-9s %-8s below %s", a.ID, a.State, verifier(row))
		if waits != "" {
			fmt.Fprintf(&b, "; until %s. %s", s.clock(at), waits)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
