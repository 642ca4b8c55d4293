package fetch

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

const (
	// retryUnstated is how long an endpoint that serves no statements is left alone. Its software may be upgraded.
	retryUnstated = time.Hour
	// maxPages bounds how many documents of statements one check reads, and statementsWithin how long it takes. The
	// next check reads the rest.
	maxPages         = 2
	statementsWithin = 10 * time.Second
)

// checkStatements reads the statements on a bundle that are missing. A failure does not affect whether the bundle
// counts.
func (p *Poller) checkStatements(ctx context.Context, name string, w *Wait) {
	view := p.config.Store.View()
	h, err := relationship.HistoryOf(view, name)
	if err != nil {
		return
	}
	from, due := intake.StatementsDue(h)
	if !due {
		return
	}
	row, _, err := relationship.Relationships.Get(view, name)
	if err != nil || h.GetStatement() == "" && p.unstated.known(name, row.Value.GetGeneration(), p.now()) {
		return
	}
	b, err := p.config.Intake.BasisOf(view, name)
	if err != nil || len(b.Rel.Endpoints) == 0 {
		return // a file and an operator bring none
	}
	newest := relationship.NewestVersion(h).GetSequence()
	bounded, cancel := context.WithTimeout(ctx, statementsWithin)
	defer cancel()
	var statements []*statement.Statement
	err = w.On(bounded, func(ctx context.Context) (err error) {
		statements, err = p.fetchStatements(ctx, name, b, from, newest)
		return err
	})
	result := intake.StatementsTaken
	if err != nil {
		result = relationship.ReasonOf(err)
	}
	p.config.Intake.StatementsTotal.WithLabelValues(result).Inc()
	stated := h.GetStatement() != "" // the domain made statements before
	switch {
	case ctx.Err() != nil:
	case err == nil && len(statements) > 0, stated && (err == nil || errors.Is(err, endpoint.ErrNoStatements)):
		// A member of the peer that does not serve statements yet, or not this one, raises no alarm by itself.
		if _, err := p.config.Intake.TakeStatements(ctx, name, statements); err != nil && ctx.Err() == nil {
			p.log.Warn("checked statements were not written; they are checked again at the next refresh",
				"trust_domain", name, "error", err)
		}
	case err == nil, errors.Is(err, endpoint.ErrNoStatements), errors.Is(err, statement.ErrInvalid),
		errors.Is(err, bundle.ErrMalformed):
		p.unstated.add(name, b.Rel.Generation, p.now())
		if err != nil && stated {
			p.config.Intake.RaiseAlarm(ctx, name, relationship.Alarm{
				Name: relationship.AlarmBrokenChain, Sequence: newest,
				Detail: fmt.Sprintf("the domain made statements before, and now: %v", err),
			})
		}
	default:
		p.log.Debug(
			"statements not fetched; the next refresh fetches them again",
			"trust_domain",
			name,
			"result",
			result,
			"error",
			relationship.Clip(err.Error()),
		)
	}
}

// fetchStatements reads documents up to a sequence, within bounds.
func (p *Poller) fetchStatements(ctx context.Context, name string, b intake.Basis, from, until uint64,
) ([]*statement.Statement, error) {
	config, ep := p.config.Client, p.config.Routes.Endpoint(name, b.Rel, p.now())
	b.Rel.Configure(&config, p.config.Route)
	config.Bundles = nil
	if b.Rel.Endpoint.Profile() == endpoint.HTTPSSPIFFE {
		if b.Trust == nil {
			return nil, fmt.Errorf("fetch statements of %s: %w", name, relationship.ErrNoTrust)
		}
		config.Bundles = b.Trust
	}
	client := endpoint.NewClient(config)
	var all []*statement.Statement
	for range maxPages {
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

// unstated remembers which endpoints serve no statements, so that not every refresh tries to fetch some.
type unstated struct {
	mu     sync.Mutex
	byName map[string]unstatedAt
}

type unstatedAt struct {
	generation uint64
	at         time.Time
}

func newUnstated() *unstated { return &unstated{byName: make(map[string]unstatedAt)} }

func (u *unstated) known(name string, generation uint64, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	last, ok := u.byName[name]
	return ok && last.generation == generation && now.Sub(last.at) < retryUnstated
}

func (u *unstated) add(name string, generation uint64, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.byName[name] = unstatedAt{generation, now}
}

func (u *unstated) forget(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.byName, name)
}
