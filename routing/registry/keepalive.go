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
		revision, err := k.renew(ctx, h, m)
		if err != nil {
			k.metrics.renewals.WithLabelValues(renewalRefused).Inc()
			return raftstore.StatusError(err)
		}
		k.metrics.renewals.WithLabelValues(renewalTaken).Inc()
		if revision > 0 {
			response.Revision = uint64(revision)
		}
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
		row.Value.Ttl, row.Value.GoneAfter = durationpb.New(terms.ttl), durationpb.New(terms.goneAfter)
		row.Value.LapseTime, row.Value.Stream = nil, h.stream
		return Leases.Put(tx, id, row.Value)
	})
	if err != nil {
		return nil, err
	}
	h.lease = id
	return &ententev1.KeepLeaseResponse{Lease: leaseProto(row, 0), Secret: secret, Revision: uint64(revision)}, nil
}

// renew applies one message of the holder and renews the lease.
func (k *LeaseKeeper) renew(ctx context.Context, h holder, m *ententev1.KeepLeaseRequest) (raftstore.Revision, error) {
	row, err := heldLease(k.store.View(), h)
	if err != nil {
		return 0, err
	}
	ttl := row.Value.GetTtl().AsDuration()
	if silent := k.now().Sub(k.lastContact()); silent > ttl/2 {
		return 0, status.Errorf(
			codes.Unavailable,
			"this member has had no contact with the leader for %s and could not pass the renewal on; "+
				"use another member",
			silent.Round(time.Millisecond),
		)
	}
	if m.GetRelease() {
		return k.release(ctx, h)
	}
	changes, err := parseHealthChanges(m.GetHealth())
	if err != nil {
		return 0, invalid(err)
	}
	var revision raftstore.Revision
	if len(changes) > 0 || row.Value.GetLapseTime() != nil {
		if revision, err = k.changeHealth(ctx, h, changes); err != nil {
			return 0, err
		}
	}
	k.tracker.renew(h.lease, ttl)
	return revision, nil
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

// ListLeases returns all leases. Secrets are not stored and never returned.
func (k *LeaseKeeper) ListLeases(
	ctx context.Context,
	r *ententev1.ListLeasesRequest,
) (*ententev1.ListLeasesResponse, error) {
	view, err := Read(ctx, k.store, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	instances := make(map[string]int)
	list, err := List(view)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	for _, i := range list {
		instances[i.Lease]++
	}
	response := &ententev1.ListLeasesResponse{Revision: uint64(view.Revision())}
	for row, err := range Leases.All(view, "") {
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		response.Leases = append(response.Leases, leaseProto(row, instances[row.Key]))
	}
	return response, nil
}
