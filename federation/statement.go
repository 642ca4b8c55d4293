package federation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/relationship"
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

// checkStatements asks the endpoint of a relationship for the statements that are missing. It is best effort: nothing of it
// decides whether the bundle counts.
func (m *Manager) checkStatements(ctx context.Context, name string, w *wait) {
	view := m.config.Store.View()
	h, err := relationship.HistoryOf(view, name)
	if err != nil {
		return
	}
	from, due := intake.StatementsDue(h)
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
	m.intake.StatementsTotal.WithLabelValues(result).Inc()
	switch {
	case ctx.Err() != nil:
	case err == nil && len(statements) > 0, h.GetStatement() != "" && (err == nil || errors.Is(err, endpoint.ErrNoStatements)):
		// Where there were some before, a member that does not know of statements yet, or not of this one, is no alarm by itself.
		if _, err := m.intake.TakeStatements(ctx, name, statements); err != nil && ctx.Err() == nil {
			m.log.Warn(unwrittenStatements, "trust_domain", name, "error", err)
		}
	case err == nil, errors.Is(err, endpoint.ErrNoStatements), errors.Is(err, statement.ErrInvalid), errors.Is(err, bundle.ErrMalformed):
		m.silent.note(name, b.Rel.Generation, m.now())
		if err != nil && h.GetStatement() != "" {
			m.intake.RaiseAlarm(ctx, name, relationship.Alarm{Name: relationship.AlarmBrokenChain, Sequence: relationship.NewestVersion(h).GetSequence(), Detail: fmt.Sprintf("the domain made statements before, and now: %v", err)})
		}
	default:
		m.log.Debug("statements not fetched; they are asked for again at the next refresh", "trust_domain", name, "result", result, "error", relationship.Clip(err.Error()))
	}
}

// fetchStatements reads as many documents as it takes to come to a sequence, within bounds.
func (m *Manager) fetchStatements(ctx context.Context, name string, b basis, from, until uint64) ([]*statement.Statement, error) {
	config, ep := m.config.Client, m.routes.endpoint(name, b.Rel, m.now())
	b.Rel.Limits.Bound(&config)
	config.Bundles = nil
	if b.Rel.Endpoint.Profile() == endpoint.HTTPSSPIFFE {
		if b.Trust == nil {
			return nil, fmt.Errorf("fetch statements of %s: %w", name, relationship.ErrNoTrust)
		}
		config.Bundles = b.Trust
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
