package authority

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/raftstore"
)

// tellWithin is how long an operator waits for an upstream's word. What was revoked is revoked, and the leader goes on.
const tellWithin = 3 * time.Second

// tellUpstream has the upstream revoke what an operator just revoked, and says how that went. What fails is tried again by
// the leader.
func (m *Manager) tellUpstream(ctx context.Context, did steered) (remarks []string) {
	revoker, ok := m.upstream.(upstream.Revoker)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, tellWithin)
	defer cancel()
	for _, row := range did.rows {
		if !slices.Contains(did.ids(plan.Revoke), row.GetId()) || !owed(row) {
			continue
		}
		if err := m.revokeUpstream(ctx, revoker, row); err != nil {
			m.log.Warn("could not revoke a signing certificate in the upstream; the leader tries again", "trust_domain", row.GetTrustDomain(), "id", row.GetId(), "error", oneLine(err))
			remarks = append(remarks, fmt.Sprintf("The upstream could not be told to revoke the certificate of %s, and is told again until it can: %s.", row.GetId(), oneLine(err)))
			continue
		}
		remarks = append(remarks, fmt.Sprintf("The upstream has put the certificate of %s on its revocation list.", row.GetId()))
	}
	return remarks
}

// owed says whether the upstream is still to be told that an authority was revoked.
func owed(row *statev1.Authority) bool {
	return plan.State(row.GetState()) == plan.Revoked && row.GetUpstreamAnchor() && row.GetUpstreamRevokeTime() == nil && len(row.GetChain()) > 0
}

// revokeUpstream has the upstream revoke the certificate of an authority, and writes down that it has.
func (m *Manager) revokeUpstream(ctx context.Context, revoker upstream.Revoker, row *statev1.Authority) error {
	td, err := spiffeid.TrustDomainFromString(row.GetTrustDomain())
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(row.GetChain()[0])
	if err != nil {
		return fmt.Errorf("the certificate of authority %s: %w", row.GetId(), err)
	}
	if err := revoker.Revoke(ctx, td, certificate); err != nil {
		return err
	}
	key := table.AuthorityKey(td.Name(), row.GetId())
	_, err = m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		now, ok, err := table.Authorities.Get(tx, key)
		if err != nil || !ok || now.Value.GetUpstreamRevokeTime() != nil {
			return err
		}
		now.Value.UpstreamRevokeTime = timestamppb.New(m.config.Now())
		return table.Authorities.Put(tx, key, now.Value)
	})
	return err
}

// tendRevoked is the leader's: it tells the upstream what it was not told when it was revoked, and forgets the anchors
// and authorities that have expired since they were revoked.
func (m *Manager) tendRevoked(ctx context.Context) (time.Time, error) {
	if !m.config.Contact.ClockSane() {
		return m.config.Now().Add(clockCheck), nil
	}
	var errs []error
	if revoker, ok := m.upstream.(upstream.Revoker); ok {
		for row, err := range table.Authorities.All(m.config.Store.View(), "") {
			if err != nil {
				return plan.Never, err
			}
			if owed(row.Value) {
				errs = append(errs, m.revokeUpstream(ctx, revoker, row.Value))
			}
		}
	}
	next := plan.Never
	now := m.config.Now()
	due := false
	for row, err := range table.RevokedAnchors.All(m.config.Store.View(), "") {
		if err != nil {
			return plan.Never, err
		}
		at := table.TimeOf(row.Value.GetNotAfter()).Add(plan.ClockTolerance)
		due = due || !now.Before(at)
		next = plan.Sooner(next, at)
	}
	for row, err := range table.Distrusted.All(m.config.Store.View(), "") {
		if err != nil {
			return plan.Never, err
		}
		at := table.TimeOf(row.Value.GetNotAfter()).Add(table.DistrustedKept)
		due = due || !now.Before(at)
		next = plan.Sooner(next, at)
	}
	if due {
		_, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
			now, err := m.saneNow()
			if err != nil {
				return err
			}
			return errors.Join(table.ForgetExpiredAnchors(tx, now), table.ForgetDistrusted(tx, now))
		})
		errs = append(errs, err)
	}
	return next, errors.Join(errs...)
}
