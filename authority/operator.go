package authority

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/anchor"
	"github.com/ententehq/entente/authority/internal/journal"
	"github.com/ententehq/entente/authority/internal/request"
	"github.com/ententehq/entente/authority/issue"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// operator carries out operator actions: taint, revoke, activate, approve.
type operator struct {
	config    *Config
	executor  *executor
	journal   *journal.Journal
	issuer    *issue.Issuer
	peers     *peerReader
	anchors   *anchor.Reconciler
	publisher *publish.Publisher
	revoker   *upstreamRevoker
}

// decision returns the actions that an operator action requires. It can also write to the transaction itself.
type decision func(tx *raftstore.Tx, domain *statev1.Domain, s plan.Situation) ([]plan.Action, error)

// outcome is the result of an operator action.
type outcome struct {
	revision raftstore.Revision
	domain   *statev1.Domain
	steps    []journal.Step
	// before and after are the situations around the transaction, and rows the authorities after it.
	before, after plan.Situation
	rows          []*statev1.Authority
}

// act carries out a decision on a domain in one transaction, waits until this member signs accordingly, and reports the
// steps.
func (o *operator) act(ctx context.Context, name string, decide decision) (outcome, error) {
	var out outcome
	td, err := request.ParseDomain(name)
	if err != nil {
		return out, err
	}
	out.revision, err = o.config.Store.Update(ctx, func(tx *raftstore.Tx) (err error) {
		out, err = o.actIn(tx, td.Name(), decide)
		return err
	})
	if err != nil {
		return out, statusOf(err)
	}
	o.issuer.Await(ctx, out.revision)
	if err := o.journal.Report(td.Name(), out.steps, out.revision); err != nil {
		return out, status.Errorf(codes.Unavailable,
			"it was done at revision %d, but not all of it is in the audit log: %v", out.revision, err)
	}
	return out, nil
}

// try returns what a decision on a domain would do, and does nothing.
func (o *operator) try(ctx context.Context, name string, decide decision) (outcome, error) {
	var out outcome
	td, err := request.ParseDomain(name)
	if err != nil {
		return out, err
	}
	err = raftstore.Try(ctx, o.config.Store, func(tx *raftstore.Tx) (err error) {
		out, err = o.actIn(tx, td.Name(), decide)
		return err
	})
	if err != nil {
		return out, statusOf(err)
	}
	out.revision = o.config.Store.View().Revision()
	return out, nil
}

// actIn carries out a decision inside a transaction.
func (o *operator) actIn(tx *raftstore.Tx, td string, decide decision) (out outcome, err error) {
	now, err := o.executor.clock.Checked() // here, since the clock can be set on the way
	if err != nil {
		return out, status.Errorf(codes.FailedPrecondition,
			"the clock of member %s is not known to be that of the others, and it would record a wrong time; ask "+
				"another member",
			o.config.Member)
	}
	if out.domain, err = request.Domain(tx, td); err != nil {
		return out, err
	}
	if out.before, _, err = o.executor.situation(tx, out.domain, now); err != nil {
		return out, err
	}
	actions, err := decide(tx, out.domain, out.before)
	if err != nil {
		return out, err
	}
	if out.steps, err = o.executor.apply(tx, out.domain, actions, now); err != nil {
		return out, err
	}
	out.after, out.rows, err = o.executor.situation(tx, out.domain, now)
	return out, err
}

// statusOf gives refusals their gRPC status.
func statusOf(err error) error {
	var refusal plan.Refusal
	switch {
	case !errors.As(err, &refusal):
		return raftstore.StatusError(err)
	case errors.Is(err, plan.ErrNoAuthority), errors.Is(err, plan.ErrNoAnchor):
		return status.Error(codes.NotFound, refusal.Error())
	}
	return status.Error(codes.FailedPrecondition, refusal.Error())
}

// messages returns the authorities that were changed and still exist, as the API shows them.
func (o outcome) messages() ([]*ententev1.Authority, error) {
	var messages []*ententev1.Authority
	for _, step := range o.steps {
		for _, row := range o.rows {
			if row.GetId() != step.ID {
				continue
			}
			message, err := authorityMessage(o.after, row)
			if err != nil {
				return nil, raftstore.StatusError(err)
			}
			messages = append(messages, message)
		}
	}
	return messages, nil
}

// ids returns the authorities for which the verb was carried out.
func (o outcome) ids(verb plan.Verb) (ids []string) {
	for _, step := range o.steps {
		if step.Do == verb {
			ids = append(ids, step.ID)
		}
	}
	return ids
}

// sequence returns the sequence of the bundle that was published, or 0.
func (o outcome) sequence() uint64 {
	for _, step := range o.steps {
		if step.Sequence > 0 {
			return step.Sequence
		}
	}
	return 0
}

// alive returns the members that the leader counts as alive. They are only used in warnings, so a failure is logged.
func (o *operator) alive() []string {
	alive, err := o.config.Alive(o.config.Store.View())
	if err != nil {
		o.config.Logger.Warn("cannot read which members are alive", "error", err)
	}
	return alive
}

// revokeAnchor revokes an anchor of the domain's bundle, or one that waits for approval, with all authorities below it.
func (o *operator) revokeAnchor(
	tx *raftstore.Tx, domain *statev1.Domain, s plan.Situation, keyID string, force bool,
) ([]plan.Action, error) {
	td := domain.GetTrustDomain()
	published, err := publish.HostedBundle(tx, td)
	if err != nil || published == nil {
		return nil, err
	}
	var actions []plan.Action
	found := false
	for _, anchor := range published.X509Authorities() {
		if svid.AnchorID(anchor) != keyID {
			continue
		}
		found = true
		below, err := plan.RevokeAnchor(s.Authorities, string(anchor.Raw), force)
		if err != nil {
			return nil, err
		}
		actions = append(actions, below...)
		if err := table.PutRevokedAnchor(tx, td, anchor, s.Now); err != nil {
			return nil, err
		}
	}
	if !found {
		if found, err = revokePending(tx, td, keyID, s.Now); found || err != nil {
			return nil, err
		}
		return nil, plan.Refusal{Err: fmt.Errorf(
			"the bundle of %s holds no anchor %q; 'entente authority list --output json' shows them as key_id", td,
			keyID)}
	}
	if len(actions) > 0 {
		return actions, table.MarkAnchorRevoked(tx, td, actions)
	}
	_, err = o.publisher.Publish(tx, domain, s.Now) // no authority is below it
	return nil, err
}

// revokePending revokes an anchor that waits for approval, so that it is never published.
func revokePending(tx *raftstore.Tx, td, keyID string, now time.Time) (found bool, err error) {
	rows, err := table.ListUpstreamAnchors(tx, td)
	if err != nil {
		return false, err
	}
	for _, row := range rows {
		c, err := x509.ParseCertificate(row.GetCertificate())
		if err != nil {
			return false, fmt.Errorf("an anchor of the upstream of %s: %w", td, err)
		}
		if svid.AnchorID(c) != keyID {
			continue
		}
		found = true
		if err := table.PutRevokedAnchor(tx, td, c, now); err != nil {
			return false, err
		}
	}
	return found, nil
}
