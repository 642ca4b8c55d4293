package authority

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/internal/clock"
	"github.com/ententehq/entente/authority/internal/journal"
	"github.com/ententehq/entente/authority/internal/loop"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// reconcileFunc does what is due, and returns the time of the next run: [plan.Never] for only at the next change.
type reconcileFunc = func(context.Context) (next time.Time, err error)

// maxRounds bounds the rounds of planning for a domain in one run. Three suffice: prepare, activate, nothing more.
const maxRounds = 8

// reconciler moves authorities that exist through their states.
type reconciler struct {
	config   *Config
	executor *executor
	journal  *journal.Journal
	peers    *peerReader
}

// domains returns the hosted domains once this member may begin and end authorities of them, and else the time to
// check again.
func (c *reconciler) domains(ctx context.Context) (domains []string, next time.Time, err error) {
	if !c.executor.clock.Sane() {
		return nil, c.config.Now().Add(clock.CheckInterval), nil // it must not begin or end anything by its clock
	}
	// A member is recorded a moment after it founds or joins a cluster. Before that, its authorities would be ended as
	// those of a lost member. A removed member must not begin any.
	members, err := c.config.Members(c.config.Store.View())
	if err != nil || !slices.Contains(members, c.config.Member) {
		return nil, plan.Never, err
	}
	if err := c.ensureHome(ctx); err != nil {
		return nil, plan.Never, err
	}
	rows, err := table.Domains.List(c.config.Store.View(), "")
	for _, row := range rows {
		domains = append(domains, row.Key)
	}
	return domains, plan.Never, err
}

// ensureHome creates the home domain if it does not exist.
func (c *reconciler) ensureHome(ctx context.Context) error {
	home := c.config.Home.Name()
	if hosted, err := table.Hosts(c.config.Store.View(), home); err != nil || hosted {
		return err
	}
	_, err := c.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if hosted, err := table.Hosts(tx, home); err != nil || hosted {
			return err
		}
		domain := &statev1.Domain{
			Generation: raftstore.NextGeneration(tx, 0), TrustDomain: home,
			CreateTime: timestamppb.New(c.config.Now()),
		}
		table.SetSettings(domain, c.config.Defaults)
		return table.Domains.Put(tx, home, domain)
	})
	if err != nil {
		return fmt.Errorf("create the home domain %s: %w", home, err)
	}
	return nil
}

// reconcileOwn moves this member's authorities of all hosted domains through their states. It waits for no other
// system, so that an upstream that hangs delays neither an activation nor the end of an expired authority.
func (c *reconciler) reconcileOwn(ctx context.Context) (next time.Time, err error) {
	domains, next, err := c.domains(ctx)
	if err != nil {
		return plan.Never, err
	}
	var errs []error
	for _, td := range domains {
		at, err := c.reconcileDomain(ctx, td)
		if err != nil {
			errs = append(errs, fmt.Errorf("authorities of %s: %w", td, err)) // the other domains are independent
		}
		next = plan.Sooner(next, at)
	}
	return next, errors.Join(errs...)
}

// reconcileDomain carries out what is due for one domain, without preparing authorities, and returns the time of the
// next run.
func (c *reconciler) reconcileDomain(ctx context.Context, td string) (time.Time, error) {
	for range maxRounds {
		view := c.config.Store.View()
		domain, ok, err := table.Domains.Get(view, td)
		if err != nil || !ok {
			return plan.Never, err
		}
		s, _, err := c.executor.situation(view, domain.Value, c.config.Now())
		if err != nil {
			return plan.Never, err
		}
		s.Peers = c.peers.of(ctx, td, s, false)
		actions, next := plan.Next(s)
		if !slices.ContainsFunc(actions, func(a plan.Action) bool { return a.Do != plan.Prepare }) {
			return next, nil
		}
		if err := c.journal.Change(ctx, td, func(tx *raftstore.Tx) ([]journal.Step, error) {
			return c.executor.carryOut(tx, td, nil, s.Peers)
		}); err != nil {
			return plan.Never, err
		}
	}
	return c.config.Now().Add(loop.LastRetry), nil
}

// reconcileLost ends the authorities of members that cannot act. It runs on the leader.
func (c *reconciler) reconcileLost(ctx context.Context) (next time.Time, err error) {
	if !c.executor.clock.Sane() {
		return c.config.Now().Add(clock.CheckInterval), nil
	}
	domains, err := table.Domains.List(c.config.Store.View(), "")
	if err != nil {
		return plan.Never, err
	}
	for _, domain := range domains {
		td := domain.Key
		actions, dropped, at, err := c.executor.dueForLost(c.config.Store.View(), domain.Value, c.config.Now())
		if err != nil {
			return plan.Never, err
		}
		if len(actions)+len(dropped) > 0 {
			if err := c.journal.Change(ctx, td, func(tx *raftstore.Tx) ([]journal.Step, error) {
				return c.executor.carryOutLost(tx, td)
			}); err != nil {
				return plan.Never, err
			}
			if _, _, at, err = c.executor.dueForLost(c.config.Store.View(), domain.Value, c.config.Now()); err != nil {
				return plan.Never, err
			}
		}
		next = plan.Sooner(next, at)
	}
	return next, nil
}
