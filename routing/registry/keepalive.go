package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	"github.com/ententehq/entente/access/audit"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

const (
	// maxLeases bounds the leases of the cluster, maxLeasesOfOne those of one owner. Both are checked outside of the
	// transaction; a few leases can exceed them.
	maxLeases      = 50000
	maxLeasesOfOne = 10000
)

// LeaseKeeper serves the calls about leases.
type LeaseKeeper struct {
	store       *raftstore.Store
	audit       audit.Recorder
	scope       func(context.Context) access.Scope
	tracker     *Tracker
	collector   *Collector
	metrics     *metrics
	lastContact func() time.Time
	now         func() time.Time
	log         hclog.Logger
}

// holder is a lease with the stream that holds it.
type holder struct{ lease, stream string }

// KeepLease opens a lease and renews it with each message. The end of the stream does not end the lease: until it runs
// out, the holder may open another stream, at this member or at another.
func (k *LeaseKeeper) KeepLease(stream ententev1.RoutingService_KeepLeaseServer) error {
	ctx := stream.Context()
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	if m.GetOpen() == nil {
		return status.Error(codes.InvalidArgument,
			"the first message of a lease has to open it: set open.ttl, and open.secret to continue an existing lease")
	}
	h := holder{stream: rand.Text()}
	response, err := k.open(ctx, m.GetOpen(), &h)
	if err != nil {
		return raftstore.StatusError(err)
	}
	for {
		revision, lost, err := k.renew(ctx, h, m)
		if err != nil {
			k.metrics.renewals.WithLabelValues(renewalRefused).Inc()
			return raftstore.StatusError(err)
		}
		k.metrics.renewals.WithLabelValues(renewalTaken).Inc()
		if revision > 0 {
			response.Revision = uint64(revision)
		}
		response.Lost = lost
		if err := stream.Send(response); err != nil || m.GetRelease() {
			return err
		}
		if m, err = stream.Recv(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if m.GetOpen() != nil {
			return status.Error(
				codes.InvalidArgument,
				"the lease of this stream is open already; open another on a stream of its own",
			)
		}
		response = &ententev1.KeepLeaseResponse{}
	}
}

// open creates a lease, or continues an existing one, whose instances then count with the health that they have. It
// sets h.lease.
func (k *LeaseKeeper) open(
	ctx context.Context,
	open *ententev1.OpenLease,
	h *holder,
) (*ententev1.KeepLeaseResponse, error) {
	terms, err := parseTerms(open)
	if err != nil {
		return nil, invalid(err)
	}
	caller, secret := access.CallerFrom(ctx), open.GetSecret()
	if secret == "" {
		secret = newSecret()
		if err := k.checkQuota(ownerOf(caller)); err != nil {
			return nil, err
		}
	}
	digest, id, err := digestOf(secret)
	if err != nil {
		return nil, invalid(err)
	}
	var row raftstore.Row[*statev1.Lease]
	revision, err := k.store.Update(ctx, func(tx *raftstore.Tx) error {
		if open.GetSecret() == "" {
			row = raftstore.Row[*statev1.Lease]{
				Key:   id,
				Value: leaseRow(digest[:], terms, ownerOf(caller), h.stream, k.now()),
			}
			return Leases.Put(tx, id, row.Value)
		}
		if row, err = ownedLease(tx, secret, caller); err != nil {
			return err
		}
		row.Value.Ttl, row.Value.RemovalDelay = durationpb.New(terms.ttl), durationpb.New(terms.removalDelay)
		row.Value.Stream = h.stream
		revive(row.Value)
		return Leases.Put(tx, id, row.Value)
	})
	if err != nil {
		return nil, err
	}
	h.lease = id
	return &ententev1.KeepLeaseResponse{
		Lease: leaseProto(row, 0, k.scope(ctx)), Secret: secret, Revision: uint64(revision),
	}, nil
}

// renew applies one message of the holder and renews the lease. It returns what the lease has lost.
func (k *LeaseKeeper) renew(
	ctx context.Context, h holder, m *ententev1.KeepLeaseRequest,
) (revision raftstore.Revision, lost []*ententev1.LostInstance, err error) {
	row, err := heldLease(k.store.View(), h)
	if err != nil {
		return 0, nil, err
	}
	ttl := row.Value.GetTtl().AsDuration()
	if err := checkContact(k.lastContact(), k.now(), ttl); err != nil {
		return 0, nil, err
	}
	if m.GetRelease() {
		revision, err = k.release(ctx, h)
		return revision, nil, err
	}
	changes, err := parseHealthChanges(m.GetHealth())
	if err != nil {
		return 0, nil, invalid(err)
	}
	if len(changes) > 0 || row.Value.GetExpireTime() != nil {
		if revision, err = k.changeHealth(ctx, h, changes); err != nil {
			return 0, nil, err
		}
	}
	k.tracker.renew(h.lease, ttl)
	return revision, lostProto(row.Value.GetLost(), k.scope(ctx)), nil
}

// checkContact returns an error if a member whose last contact with the leader was at a time (zero: none since it
// started) cannot pass the renewal of a lease with this TTL on.
func checkContact(last, now time.Time, ttl time.Duration) error {
	silent := now.Sub(last)
	if silent <= ttl/2 {
		return nil
	}
	since := "for " + silent.Round(time.Millisecond).String()
	if last.IsZero() {
		since = "since it started"
	}
	return status.Errorf(codes.Unavailable,
		"this member has had no contact with the leader %s and could not pass the renewal on; use another member",
		since)
}

// release ends a lease at once. Without its row none of its instances counts. Their rows are deleted by this member, or
// else by the leader.
func (k *LeaseKeeper) release(ctx context.Context, h holder) (raftstore.Revision, error) {
	revision, err := k.store.Update(ctx, func(tx *raftstore.Tx) error {
		if _, err := heldLease(tx, h); err != nil {
			return err
		}
		return Leases.Delete(tx, h.lease)
	})
	if err != nil {
		return 0, err
	}
	if err := k.collector.deleteLease(ctx, h.lease); err != nil {
		k.log.Info(
			"the instances of a released lease are not deleted yet; the leader deletes them",
			"lease", h.lease, "error", err,
		)
	}
	return revision, nil
}

// checkQuota returns an error if an owner cannot open another lease.
func (k *LeaseKeeper) checkQuota(owner string) error {
	all, own := 0, 0
	for row, err := range Leases.All(k.store.View(), "") {
		if err != nil {
			return err
		}
		all++
		if row.Value.GetOwner() == owner {
			own++
		}
	}
	switch {
	case own >= maxLeasesOfOne:
		return status.Errorf(codes.ResourceExhausted,
			"%s holds %d leases, which is the limit: keep one lease for all instances of a control plane", owner, own)
	case all >= maxLeases:
		return status.Errorf(codes.ResourceExhausted,
			"there are %d leases, which is the limit: keep one lease for all instances of a control plane", all)
	}
	return nil
}

// ListLeases returns the leases of the caller, and those with instances that it sees. Secrets are not stored and never
// returned.
func (k *LeaseKeeper) ListLeases(
	ctx context.Context,
	r *ententev1.ListLeasesRequest,
) (*ententev1.ListLeasesResponse, error) {
	view, err := Read(ctx, k.store, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	instances, kept := make(map[string]int), make(map[string]uint32)
	scope, owner := k.scope(ctx), ownerOf(access.CallerFrom(ctx))
	list, err := List(view)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	for _, i := range list {
		if scope.Includes(i.ID.TrustDomain()) {
			instances[i.Lease]++
			if i.Kept {
				kept[i.Lease]++
			}
		}
	}
	response := &ententev1.ListLeasesResponse{Revision: uint64(view.Revision())}
	for row, err := range Leases.All(view, "") {
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		if scope.Everything() || row.Value.GetOwner() == owner || instances[row.Key] > 0 {
			m := leaseProto(row, instances[row.Key], scope)
			m.Kept = kept[row.Key]
			response.Leases = append(response.Leases, m)
		}
	}
	return response, nil
}
