package authority

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/internal/clock"
	"github.com/ententehq/entente/authority/internal/loop"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/raftstore"
)

// revokeTimeout is the time for which an operator action waits for the upstream. The authority is revoked before, and
// the leader retries.
const revokeTimeout = 3 * time.Second

// upstreamRevoker has the upstream revoke the certificates of revoked authorities.
type upstreamRevoker struct {
	upstream upstream.Revoker // nil if the upstream revokes nothing
	store    *raftstore.Store
	clock    clock.Clock
	log      hclog.Logger
}

// revokeNow has the upstream revoke what an operator just revoked, and returns the outcome in sentences. The leader
// retries what fails.
func (v *upstreamRevoker) revokeNow(ctx context.Context, rows []*statev1.Authority, ids []string) (warnings []string) {
	if v.upstream == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	for _, row := range rows {
		if !slices.Contains(ids, row.GetId()) || !pending(row) {
			continue
		}
		if err := v.revoke(ctx, row); err != nil {
			v.log.Warn("cannot revoke a signing certificate in the upstream; the leader retries",
				"trust_domain", row.GetTrustDomain(), "id", row.GetId(), "error", loop.OneLine(err))
			warnings = append(
				warnings,
				fmt.Sprintf("The upstream has not revoked the certificate of %s yet; the leader retries: %s.",
					row.GetId(), loop.OneLine(err)),
			)
			continue
		}
		warnings = append(warnings,
			fmt.Sprintf("The upstream has put the certificate of %s on its revocation list.", row.GetId()))
	}
	return warnings
}

// pending reports whether the upstream still has to revoke the certificate of a revoked authority.
func pending(row *statev1.Authority) bool {
	return plan.State(row.GetState()) == plan.Revoked && row.GetUpstreamAnchor() &&
		row.GetUpstreamRevokeTime() == nil &&
		len(row.GetChain()) > 0
}

// revoke has the upstream revoke the certificate of an authority, and records that.
func (v *upstreamRevoker) revoke(ctx context.Context, row *statev1.Authority) error {
	td, err := spiffeid.TrustDomainFromString(row.GetTrustDomain())
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(row.GetChain()[0])
	if err != nil {
		return fmt.Errorf("the certificate of authority %s: %w", row.GetId(), err)
	}
	if err := v.upstream.Revoke(ctx, td, certificate); err != nil {
		return err
	}
	key := table.AuthorityKey(td.Name(), row.GetId())
	_, err = v.store.Update(ctx, func(tx *raftstore.Tx) error {
		stored, ok, err := table.Authorities.Get(tx, key)
		if err != nil || !ok || stored.Value.GetUpstreamRevokeTime() != nil {
			return err
		}
		stored.Value.UpstreamRevokeTime = timestamppb.New(v.clock.Now())
		return table.Authorities.Put(tx, key, stored.Value)
	})
	return err
}

// reconcile has the upstream revoke what it has not revoked yet, and deletes the records of revoked anchors and of
// distrusted authorities that have expired. It runs on the leader.
func (v *upstreamRevoker) reconcile(ctx context.Context) (next time.Time, err error) {
	if !v.clock.Sane() {
		return v.clock.Now().Add(clock.CheckInterval), nil
	}
	var errs []error
	if v.upstream != nil {
		for row, err := range table.Authorities.All(v.store.View(), "") {
			if err != nil {
				return plan.Never, err
			}
			if pending(row.Value) {
				errs = append(errs, v.revoke(ctx, row.Value))
			}
		}
	}
	due, err := table.RecordsExpire(v.store.View())
	if err != nil {
		return plan.Never, err
	}
	if due.IsZero() || v.clock.Now().Before(due) {
		return due, errors.Join(errs...)
	}
	_, err = v.store.Update(ctx, func(tx *raftstore.Tx) error {
		now, err := v.clock.Checked()
		if err != nil {
			return err
		}
		return table.DeleteExpiredRecords(tx, now)
	})
	return due, errors.Join(append(errs, err)...)
}
