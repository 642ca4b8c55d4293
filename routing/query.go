package routing

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/routing/plan"
)

// recheck is how often a watched hint is looked at although nothing was written: a bundle expires without a write.
const recheck = 5 * time.Second

// ListServices returns all services with their instances.
func (s *Server) ListServices(ctx context.Context, r *ententev1.ListServicesRequest) (*ententev1.ListServicesResponse, error) {
	view, err := s.read(ctx, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	list, err := decode(view, "")
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	answer := &ententev1.ListServicesResponse{Revision: uint64(view.Revision())}
	byName := make(map[string]*ententev1.Service)
	for _, i := range list {
		service := byName[i.Service]
		if service == nil {
			service = &ententev1.Service{Name: i.Service, Revision: uint64(revisionOf(view, i.Service))}
			byName[i.Service] = service
			answer.Services = append(answer.Services, service)
		}
		service.Instances = append(service.Instances, i.Proto())
	}
	return answer, nil
}

// GetService returns one service with its instances.
func (s *Server) GetService(ctx context.Context, r *ententev1.GetServiceRequest) (*ententev1.Service, error) {
	if err := plan.CheckServiceName(r.GetName()); err != nil {
		return nil, invalid(err)
	}
	view, err := s.read(ctx, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	present, err := s.m.catalog.service(view, r.GetName())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if len(present.instances) == 0 {
		return nil, status.Errorf(codes.NotFound, "service %s has no instance; register one with: entente service register %s …", r.GetName(), r.GetName())
	}
	service := &ententev1.Service{Name: r.GetName(), Revision: uint64(revisionOf(view, r.GetName()))}
	for _, i := range present.instances {
		service.Instances = append(service.Instances, i.Proto())
	}
	return service, nil
}

// revisionOf is that of the last change of what is registered of a service.
func revisionOf(r raftstore.Reader, service string) raftstore.Revision {
	prefix := servicePrefix(service)
	return max(Instances.PrefixRevision(r, prefix), Sets.PrefixRevision(r, prefix), importsRevision(r, prefix))
}

// GetHint answers from this member's own state unless asked otherwise: a hint has to come at once, also without a leader.
func (s *Server) GetHint(ctx context.Context, r *ententev1.GetHintRequest) (*ententev1.Hint, error) {
	caller, err := parseHint(r.GetService(), r.GetLocality())
	if err != nil {
		return nil, err
	}
	view, err := s.read(ctx, r.GetRead(), false)
	if err != nil {
		return nil, err
	}
	h, err := s.m.cachedHint(view, r.GetService(), caller, s.m.sight(ctx))
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	s.m.countHint(h)
	return h.hint, nil
}

// WatchHint sends the present hint and then each that differs from the one before.
func (s *Server) WatchHint(r *ententev1.WatchHintRequest, stream ententev1.RoutingService_WatchHintServer) error {
	caller, err := parseHint(r.GetService(), r.GetLocality())
	if err != nil {
		return err
	}
	w := &hintWatch{m: s.m, service: r.GetService(), caller: caller, sight: s.m.sight(stream.Context()), send: stream.Send}
	g, ctx := errgroup.WithContext(stream.Context())
	g.Go(func() error { return feed.Latest(ctx, s.m.store, s.m.prefixesOf(r.GetService()), w.look) })
	g.Go(func() error {
		tick := time.NewTicker(recheck)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
				if err := w.look(s.m.store.View()); err != nil {
					return err
				}
			}
		}
	})
	return raftstore.StatusError(g.Wait())
}

// hintWatch remembers what a watcher has seen.
type hintWatch struct {
	m       *Manager
	service string
	caller  plan.Locality
	sight   access.Scope
	send    func(*ententev1.Hint) error

	mu   sync.Mutex
	last *ententev1.Hint
}

func (w *hintWatch) look(view *raftstore.View) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last != nil && uint64(view.Revision()) < w.last.GetRevision() {
		return nil
	}
	found, err := w.m.cachedHint(view, w.service, w.caller, w.sight)
	if err != nil {
		return err
	}
	next := found.hint
	if w.last != nil {
		same := &ententev1.Hint{
			Service: next.GetService(), Locality: next.GetLocality(), Revision: w.last.GetRevision(),
			Priorities: next.GetPriorities(), Excluded: next.GetExcluded(), Reason: next.GetReason(),
		}
		if proto.Equal(same, w.last) {
			return nil
		}
	}
	w.last = next
	w.m.countHint(found)
	return w.send(next)
}

func parseHint(service string, at *ententev1.Locality) (plan.Locality, error) {
	if err := plan.CheckServiceName(service); err != nil {
		return plan.Locality{}, invalid(err)
	}
	caller, err := plan.LocalityFromProto(at)
	if err != nil {
		return plan.Locality{}, invalid(err)
	}
	return caller, nil
}

// read opens the state that a call asks for.
func (s *Server) read(ctx context.Context, o *ententev1.ReadOptions, linearizable bool) (*raftstore.View, error) {
	switch o.GetConsistency() {
	case ententev1.Consistency_CONSISTENCY_UNSPECIFIED:
	case ententev1.Consistency_CONSISTENCY_STALE:
		linearizable = false
	case ententev1.Consistency_CONSISTENCY_LINEARIZABLE:
		linearizable = true
	default:
		return nil, status.Errorf(codes.InvalidArgument, "consistency %d is not known; stale and linearizable are", int32(o.GetConsistency()))
	}
	view, err := s.m.store.Read(ctx, raftstore.ReadOptions{Linearizable: linearizable, MinRevision: raftstore.Revision(o.GetMinRevision())})
	return view, raftstore.StatusError(err)
}
