package routing

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

const (
	// maxHealthChanges bounds one message of a holder, so that it fits into one transaction.
	maxHealthChanges = 1000
	// maxLeases bounds what the leader remembers, maxLeasesOfOne what one caller can take of it. Both are counted outside of the
	// transaction; a few can slip past.
	maxLeases      = 50000
	maxLeasesOfOne = 10000
	// namedChanges is how many changes of health one line of the audit log names.
	namedChanges = 20
)

// HoldLease takes a lease and keeps it for as long as messages come. That the stream ends says nothing: the holder may open
// another, at this member or another, for as long as the lease lasts.
func (s *Server) HoldLease(stream ententev1.RoutingService_HoldLeaseServer) error {
	ctx := stream.Context()
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	if m.GetOpen() == nil {
		return status.Error(codes.InvalidArgument, "the first message of a lease has to open it: set open.ttl, and open.secret to take one up again")
	}
	stands := holding{stream: rand.Text()}
	answer, err := s.takeLease(ctx, m.GetOpen(), &stands)
	if err != nil {
		return raftstore.StatusError(err)
	}
	for {
		revision, err := s.held(ctx, stands, m)
		if err != nil {
			s.m.metrics.renewals.WithLabelValues(renewalRefused).Inc()
			return raftstore.StatusError(err)
		}
		s.m.metrics.renewals.WithLabelValues(renewalTaken).Inc()
		if revision > 0 {
			answer.Revision = uint64(revision)
		}
		if err := stream.Send(answer); err != nil || m.GetRelease() {
			return err
		}
		if m, err = stream.Recv(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if m.GetOpen() != nil {
			return status.Error(codes.InvalidArgument, "the lease of this stream is open already; open another on a stream of its own")
		}
		answer = &ententev1.HoldLeaseResponse{}
	}
}

// holding is a lease with the name of the stream that holds it.
type holding struct{ lease, stream string }

// takeLease opens a lease, or takes one up again, which makes its instances count as healthy as they are. It sets h.lease.
func (s *Server) takeLease(ctx context.Context, open *ententev1.OpenLease, h *holding) (*ententev1.HoldLeaseResponse, error) {
	terms, err := parseTerms(open)
	if err != nil {
		return nil, invalid(err)
	}
	caller, secret := access.CallerFrom(ctx), open.GetSecret()
	if secret == "" {
		secret = newSecret()
		if err := s.m.roomForLease(ownerOf(caller)); err != nil {
			return nil, err
		}
	}
	digest, id, err := digestOf(secret)
	if err != nil {
		return nil, invalid(err)
	}
	var row raftstore.Row[*statev1.Lease]
	revision, err := s.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		if open.GetSecret() == "" {
			row = raftstore.Row[*statev1.Lease]{Key: id, Value: leaseRow(digest[:], terms, ownerOf(caller), h.stream, s.m.now())}
			return Leases.Put(tx, id, row.Value)
		}
		if row, err = holdable(tx, secret, caller); err != nil {
			return err
		}
		row.Value.Ttl, row.Value.GoneAfter, row.Value.LapseTime = durationpb.New(terms.ttl), durationpb.New(terms.goneAfter), nil
		row.Value.Stream = h.stream
		return Leases.Put(tx, id, row.Value)
	})
	if err != nil {
		return nil, err
	}
	h.lease = id
	return &ententev1.HoldLeaseResponse{Lease: leaseProto(row, 0), Secret: secret, Revision: uint64(revision)}, nil
}

// held does what one message of the holder says, and renews the lease.
func (s *Server) held(ctx context.Context, h holding, m *ententev1.HoldLeaseRequest) (raftstore.Revision, error) {
	row, err := heldBy(s.m.store.View(), h.lease, h.stream)
	if err != nil {
		return 0, err
	}
	ttl := row.Value.GetTtl().AsDuration()
	if silent := s.m.now().Sub(s.m.lastHeard()); silent > ttl/2 {
		return 0, status.Errorf(codes.Unavailable, "this member has not heard from the leader for %s and could not pass the renewal on; turn to another member", silent.Round(time.Millisecond))
	}
	if m.GetRelease() {
		return s.release(ctx, h)
	}
	changes, err := parseChanges(m.GetHealth())
	if err != nil {
		return 0, invalid(err)
	}
	var revision raftstore.Revision
	if len(changes) > 0 || row.Value.GetLapseTime() != nil {
		if revision, err = s.changeHealth(ctx, h, changes); err != nil {
			return 0, err
		}
	}
	s.m.renewals.renew(h.lease, ttl, s.m.now())
	return revision, nil
}

type healthChange struct {
	service, address string
	health           plan.Health
}

func parseChanges(list []*ententev1.HealthChange) ([]healthChange, error) {
	if len(list) > maxHealthChanges {
		return nil, fmt.Errorf("%w: %d changes of health in one message; %d are allowed, the rest goes into the next", ErrInstance, len(list), maxHealthChanges)
	}
	out := make([]healthChange, 0, len(list))
	for i, c := range list {
		if err := plan.CheckServiceName(c.GetService()); err != nil {
			return nil, fmt.Errorf("change %d: %w", i, err)
		}
		address, err := plan.ParseAddress(c.GetAddress())
		if err != nil {
			return nil, fmt.Errorf("change %d: %w", i, err)
		}
		health, err := healthFrom(c.GetHealth(), 0)
		if err == nil && health == 0 {
			err = fmt.Errorf("%w: it has no health", ErrInstance)
		}
		if err != nil {
			return nil, fmt.Errorf("change %d: %w", i, err)
		}
		out = append(out, healthChange{c.GetService(), address.String(), health})
	}
	return out, nil
}

// changeHealth writes all changes of one message in one transaction, and takes the lease up again if it ran out while its holder
// was not heard.
func (s *Server) changeHealth(ctx context.Context, h holding, changes []healthChange) (raftstore.Revision, error) {
	event := access.Event{Caller: access.CallerFrom(ctx).String(), Action: "RoutingService/HoldLease health", Object: "lease " + h.lease, Detail: changesText(changes)}
	if len(changes) > 0 {
		begun := event
		begun.Result = access.ResultBegun
		if err := s.m.audit.Record(begun); err != nil {
			return 0, status.Errorf(codes.Unavailable, "the change of health was not made, because it cannot be audited: %v; make room on the member's disk, or ask another member", err)
		}
	}
	revision, err := s.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		row, err := heldBy(tx, h.lease, h.stream)
		if err != nil {
			return err
		}
		if row.Value.GetLapseTime() != nil {
			row.Value.LapseTime = nil
			if err := Leases.Put(tx, h.lease, row.Value); err != nil {
				return err
			}
		}
		for _, c := range changes {
			if err := c.write(ctx, tx, h.lease); err != nil {
				return err
			}
		}
		return nil
	})
	if len(changes) > 0 {
		event.Result, event.Revision = access.ResultDone, uint64(revision)
		if err != nil {
			event.Result, event.Detail = access.ResultFailed, err.Error()
		}
		// What was done stays done; the log itself says why it could not write.
		_ = s.m.audit.Record(event)
	}
	return revision, err
}

func (c healthChange) write(ctx context.Context, tx *raftstore.Tx, lease string) error {
	of := set{c.service, lease}
	generation, err := of.generation(tx)
	if err != nil {
		return err
	}
	key := of.in(generation) + c.address
	row, found, err := Instances.Get(tx, key)
	if err != nil {
		return err
	}
	if !found {
		return status.Errorf(codes.FailedPrecondition, "the lease has no instance of %s at %s; register it before you report its health", c.service, c.address)
	}
	i, err := fromRow(row)
	if err != nil {
		return err
	}
	if err := access.Permits(ctx, i.ID); err != nil {
		return err
	}
	row.Value.Health = uint32(c.health)
	return Instances.Put(tx, key, row.Value)
}

func changesText(changes []healthChange) string {
	var parts []string
	for _, c := range changes[:min(len(changes), namedChanges)] {
		parts = append(parts, fmt.Sprintf("%s %s %s", c.service, c.address, c.health))
	}
	if more := len(changes) - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, ", ")
}

// release ends a lease at once. Without its row none of its instances counts; this member clears them away, and if it cannot,
// the leader does.
func (s *Server) release(ctx context.Context, h holding) (raftstore.Revision, error) {
	revision, err := s.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		if _, err := heldBy(tx, h.lease, h.stream); err != nil {
			return err
		}
		return Leases.Delete(tx, h.lease)
	})
	if err != nil {
		return 0, err
	}
	if err := s.m.clear(ctx, h.lease); err != nil {
		s.m.log.Info("instances of a lease that was given up are left to the leader to clear away", "lease", h.lease, "error", err)
	}
	return revision, nil
}

// roomForLease says whether one more can be taken.
func (m *Manager) roomForLease(owner string) error {
	all, own := 0, 0
	for row, err := range Leases.All(m.store.View(), "") {
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
		return status.Errorf(codes.ResourceExhausted, "%s holds %d leases, which is the most: keep one lease for all instances of a control plane", owner, own)
	case all >= maxLeases:
		return status.Errorf(codes.ResourceExhausted, "there are %d leases, which is the most: keep one lease for all instances of a control plane", all)
	}
	return nil
}

// ListLeases returns all leases. Their secrets are not stored, and nobody is told them.
func (s *Server) ListLeases(ctx context.Context, r *ententev1.ListLeasesRequest) (*ententev1.ListLeasesResponse, error) {
	view, err := s.read(ctx, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	instances := make(map[string]int)
	list, err := decode(view, "")
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	for _, i := range list {
		instances[i.Lease]++
	}
	answer := &ententev1.ListLeasesResponse{Revision: uint64(view.Revision())}
	for row, err := range Leases.All(view, "") {
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		answer.Leases = append(answer.Leases, leaseProto(row, instances[row.Key]))
	}
	return answer, nil
}
