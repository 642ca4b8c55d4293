package federation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// askAgain is after how long an endpoint that serves no statements is asked again. Its make may have been changed.
const askAgain = time.Hour

// unwrittenStatements is logged where what came of statements could not be written.
const unwrittenStatements = "checked statements were not written; they are checked again at the next refresh"

// pages bounds how many documents of statements one check reads, and statementsWithin for how long. What is left comes with the next.
const (
	pages            = 2
	statementsWithin = 10 * time.Second
)

// stateWithin is how many refresh intervals a version may be without a statement, at the least stateWithinLeast, where those before had
// one: members sign at once, but one that lost its lead may need a moment.
const (
	stateWithin      = 3
	stateWithinLeast = time.Minute
)

// statementsDue says from which sequence on statements are missing. A domain whose bundle has no sequence makes none.
func statementsDue(h *statev1.ForeignHistory) (from uint64, due bool) {
	newest := relationship.NewestVersion(h)
	if newest == nil || newest.Sequence == nil || len(newest.GetStatementDigest()) > 0 {
		return 0, false
	}
	if last, err := statement.Parse(h.GetStatement()); err == nil && last.Sequence() < newest.GetSequence() {
		return last.Sequence() + 1, true
	}
	return newest.GetSequence(), true
}

// judgeStatements is the rule for statements on a foreign bundle. It takes what continues what was known over into the history,
// and says what is wrong, and what came of the statements: [statementsTaken], also where all are known already, or why none was taken.
func judgeStatements(h *statev1.ForeignHistory, statements []*statement.Statement, now time.Time, interval time.Duration) (alarms []relationship.Alarm, came string) {
	newest := relationship.NewestVersion(h)
	if newest == nil || newest.Sequence == nil {
		return nil, statementsEarly
	}
	td, err := bundle.ParseTrustDomain(newest.GetTrustDomain())
	if err != nil {
		return nil, statementsUnjudged
	}
	known := statement.Known{TrustDomain: td, Seen: func(sequence uint64) (statement.View, bool) { return relationship.Shown(h, sequence) }}
	if h.GetStatement() != "" {
		if known.Newest, err = statement.Parse(h.GetStatement()); err != nil {
			return []relationship.Alarm{{Name: relationship.AlarmBrokenChain, Sequence: newest.GetSequence(), Detail: "the stored statement cannot be read: " + err.Error()}}, statementsUnjudged
		}
	} else if n := len(h.GetVersions()); n > 1 && !newest.GetBeginsAnew() {
		if before := h.GetVersions()[n-2]; before.Sequence != nil && before.GetSequence()+1 == newest.GetSequence() {
			if b, err := relationship.VersionOf(h, before); err == nil {
				known.Signers, known.SignedFrom = b.JWTAuthorities(), newest.GetSequence()
			}
		}
	}
	f := statement.Follow(known, statements, newest.GetSequence())
	if f.Broken != nil {
		alarms = append(alarms, relationship.Alarm{Name: relationship.AlarmBrokenChain, Sequence: newest.GetSequence(), Detail: f.Broken.Error()})
	}
	if f.Restart != nil {
		alarms = append(alarms, relationship.Alarm{Name: relationship.AlarmNewChain, Sequence: f.Restart.Sequence(), Detail: fmt.Sprintf("the domain says that its chain of statements starts anew (%s); nothing but its endpoint's word says that this is no forgery", f.Restart.Claims().Start)})
	}
	if f.Split != nil {
		alarms = append(alarms, relationship.Alarm{Name: relationship.AlarmSplitView, Sequence: newest.GetSequence(), Detail: f.Split.Error()})
	}
	for _, s := range f.Taken {
		digest, keys := s.Digest(), s.Claims().Keys
		for _, v := range h.GetVersions() {
			if v.Sequence != nil && v.GetSequence() == s.Sequence() && bytes.Equal(v.GetDigest(), keys[:]) {
				v.StatementDigest = digest[:]
			}
		}
	}
	if f.Newest != nil {
		h.Statement = f.Newest.String()
	}
	if known.Newest != nil && f.Newest.Sequence() < newest.GetSequence() && now.Sub(newest.GetTime().AsTime()) > max(stateWithin*interval, stateWithinLeast) {
		alarms = append(alarms, relationship.Alarm{Name: relationship.AlarmBrokenChain, Sequence: newest.GetSequence(), Detail: fmt.Sprintf("there is no statement on sequence %d, and there was one on %d", newest.GetSequence(), f.Newest.Sequence())})
	}
	return alarms, cameOf(f, statements, newest.GetSequence())
}

// What came of statements, where that is no reason of package bundle.
const (
	statementsTaken = "ok"
	// statementsEarly says that they are on versions behind the one that is stored.
	statementsEarly = "early"
	// statementsUnjudged says that this cluster could not look at them, or write what came of it.
	statementsUnjudged = "not_stored"
)

// cameOf names what came of statements that were read up to a sequence.
func cameOf(f statement.Followed, statements []*statement.Statement, until uint64) string {
	switch n := len(statements); {
	case f.Split != nil:
		return relationship.AlarmSplitView
	case len(f.Taken) > 0:
		return statementsTaken
	case f.Broken != nil:
		return relationship.ReasonOf(f.Broken)
	case n > 0 && statements[n-1].Sequence() > until:
		return statementsEarly
	}
	return statementsTaken
}

// checkStatements asks the endpoint of a relationship for the statements that are missing. It is best effort: nothing of it
// decides whether the bundle counts.
func (m *Manager) checkStatements(ctx context.Context, name string, w *wait) {
	view := m.config.Store.View()
	h, err := relationship.HistoryOf(view, name)
	if err != nil {
		return
	}
	from, due := statementsDue(h)
	if !due {
		return
	}
	row, _, err := relationship.Relationships.Get(view, name)
	if err != nil || h.GetStatement() == "" && m.silent.is(name, row.Value.GetGeneration(), m.now()) {
		return
	}
	b, err := m.basisOf(view, name)
	if err != nil {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, statementsWithin)
	defer cancel()
	var statements []*statement.Statement
	err = w.on(bounded, func(ctx context.Context) (err error) {
		statements, err = m.fetchStatements(ctx, name, b, from, relationship.NewestVersion(h).GetSequence())
		return err
	})
	result := "ok"
	if err != nil {
		result = relationship.ReasonOf(err)
	}
	m.metrics.statements.WithLabelValues(result).Inc()
	switch {
	case ctx.Err() != nil:
	case err == nil && len(statements) > 0, h.GetStatement() != "" && (err == nil || errors.Is(err, endpoint.ErrNoStatements)):
		// Where there were some before, a member that does not know of statements yet, or not of this one, is no alarm by itself.
		if _, err := m.takeStatements(ctx, name, statements); err != nil && ctx.Err() == nil {
			m.log.Warn(unwrittenStatements, "trust_domain", name, "error", err)
		}
	case err == nil, errors.Is(err, endpoint.ErrNoStatements), errors.Is(err, statement.ErrInvalid), errors.Is(err, bundle.ErrMalformed):
		m.silent.note(name, b.rel.Generation, m.now())
		if err != nil && h.GetStatement() != "" {
			m.raiseAlarm(ctx, name, relationship.Alarm{Name: relationship.AlarmBrokenChain, Sequence: relationship.NewestVersion(h).GetSequence(), Detail: fmt.Sprintf("the domain made statements before, and now: %v", err)})
		}
	default:
		m.log.Debug("statements not fetched; they are asked for again at the next refresh", "trust_domain", name, "result", result, "error", relationship.Clip(err.Error()))
	}
}

// lacksStatements says from which sequence on the statements on a foreign bundle are missing.
func (m *Manager) lacksStatements(name string) (from uint64, missing bool) {
	h, err := relationship.HistoryOf(m.config.Store.View(), name)
	if err != nil {
		return 0, false
	}
	return statementsDue(h)
}

// fetchStatements reads as many documents as it takes to come to a sequence, within bounds.
func (m *Manager) fetchStatements(ctx context.Context, name string, b basis, from, until uint64) ([]*statement.Statement, error) {
	config, ep := m.config.Client, m.routes.endpoint(name, b.rel, m.now())
	b.rel.Limits.Bound(&config)
	config.Bundles = nil
	if b.rel.Endpoint.Profile() == endpoint.HTTPSSPIFFE {
		if b.trust == nil {
			return nil, fmt.Errorf("fetch statements of %s: %w", name, relationship.ErrNoTrust)
		}
		config.Bundles = b.trust
	}
	client := endpoint.NewClient(config)
	var all []*statement.Statement
	for range pages {
		some, err := client.FetchStatements(ctx, ep, from)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if len(some) == 0 || some[len(some)-1].Sequence() >= until || some[len(some)-1].Sequence() < from {
			break
		}
		from = some[len(some)-1].Sequence() + 1
	}
	return all, nil
}

// takeStatements judges statements, from whatever source they come, and writes what follows from them: what continues what was
// known, and alarms. They are in the order of their sequences. It writes nothing where nothing is new. What came of them is as
// [judgeStatements] has it; the error says that it could not be written.
func (m *Manager) takeStatements(ctx context.Context, name string, statements []*statement.Statement) (came string, err error) {
	var raised []relationship.Alarm
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		raised, came = nil, relationship.ReasonNotWanted
		row, found, err := relationship.Relationships.Get(tx, name)
		if err != nil || !found {
			return err
		}
		h, err := relationship.HistoryOf(tx, name)
		if err != nil {
			return err
		}
		was := proto.Clone(h)
		var alarms []relationship.Alarm
		alarms, came = judgeStatements(h, statements, m.now(), m.statementInterval(tx, name))
		if !proto.Equal(was, h) {
			if err := relationship.ForeignHistory.Put(tx, name, h); err != nil {
				return err
			}
		}
		if raised = relationship.Raise(row.Value, alarms, timestamppb.New(m.now())); len(raised) == 0 {
			return nil
		}
		return relationship.Relationships.Put(tx, name, row.Value)
	})
	if err != nil {
		return statementsUnjudged, fmt.Errorf("write what came of the statements on %s: %w", name, err)
	}
	m.announce(name, raised, revision)
	return came, nil
}

// statementInterval is how often the domain asks to be looked at.
func (m *Manager) statementInterval(r raftstore.Reader, name string) time.Duration {
	row, found, err := relationship.ForeignBundles.Get(r, name)
	if err != nil || !found {
		return m.interval(relationship.Holding{})
	}
	b, err := trust.Parse(row.Value)
	if err != nil {
		return m.interval(relationship.Holding{})
	}
	return m.interval(relationship.NewHolding(b, time.Time{}, row.Revision))
}

// raiseAlarm raises one.
func (m *Manager) raiseAlarm(ctx context.Context, name string, a relationship.Alarm) {
	if row, found, err := relationship.Relationships.Get(m.config.Store.View(), name); err != nil || !found || slices.Contains(relationship.AlarmsOf(row.Value), a.Name) {
		return
	}
	var raised []relationship.Alarm
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		raised = nil
		row, found, err := relationship.Relationships.Get(tx, name)
		if err != nil || !found {
			return err
		}
		if raised = relationship.Raise(row.Value, []relationship.Alarm{a}, timestamppb.New(m.now())); len(raised) == 0 {
			return nil
		}
		return relationship.Relationships.Put(tx, name, row.Value)
	})
	if err != nil {
		return // it is found again at the next refresh
	}
	m.announce(name, raised, revision)
}

// silences remembers which endpoints serve no statements, so that they are not asked at each refresh.
type silences struct {
	mu     sync.Mutex
	byName map[string]silence
}

type silence struct {
	generation uint64
	at         time.Time
}

func newSilences() *silences { return &silences{byName: make(map[string]silence)} }

func (s *silences) is(name string, generation uint64, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	noted, ok := s.byName[name]
	return ok && noted.generation == generation && now.Sub(noted.at) < askAgain
}

func (s *silences) note(name string, generation uint64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byName[name] = silence{generation, now}
}

func (s *silences) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, name)
}

// statedSequence is up to where the statements of a domain were checked; nil: none was seen yet.
func statedSequence(r raftstore.Reader, name string) (*uint64, error) {
	h, err := relationship.HistoryOf(r, name)
	if err != nil || h.GetStatement() == "" {
		return nil, err
	}
	s, err := statement.Parse(h.GetStatement())
	if err != nil {
		return nil, err
	}
	return new(s.Sequence()), nil
}
