package routing

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/api/hintdiff"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
)

const (
	// recheck is how often a watched hint is computed without a write: a bundle expires without one.
	recheck = 5 * time.Second
	// gather is the least time between two hints of a watch, as between two updates over xDS.
	gather = 50 * time.Millisecond
)

// pause waits, or returns the error of ctx if that ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// hintServer serves hints.
type hintServer struct {
	store   *raftstore.Store
	planner *Planner
	scope   func(context.Context) access.Scope
	cache   *hintCache
	counter *prometheus.CounterVec
}

// Labels of the counter of hints.
const (
	hintOffered = "offered"
	hintPanic   = "panic"
	hintNone    = "none"
)

func newHintServer(store *raftstore.Store, planner *Planner, scope func(context.Context) access.Scope) *hintServer {
	return &hintServer{
		store: store, planner: planner, scope: scope, cache: newHintCache(planner),
		counter: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_routing_hints_total",
			Help: "Hints, by result: instances offered, instances offered in a panic, or no instance.",
		}, []string{"result"}),
	}
}

// GetHint answers from the state of this member unless the request has another consistency: a hint must not wait, and
// must not need a leader.
func (s *hintServer) GetHint(ctx context.Context, r *ententev1.GetHintRequest) (*ententev1.Hint, error) {
	caller, err := parseHintRequest(r.GetService(), r.GetLocality())
	if err != nil {
		return nil, err
	}
	view, err := registry.Read(ctx, s.store, r.GetRead(), false)
	if err != nil {
		return nil, err
	}
	h, err := s.cache.get(view, r.GetService(), caller, s.scope(ctx))
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	s.count(h)
	return h.hint, nil
}

// WatchHint sends the present hint, and then every hint that differs from the one before, or the difference.
func (s *hintServer) WatchHint(r *ententev1.WatchHintRequest, stream ententev1.RoutingService_WatchHintServer) error {
	caller, err := parseHintRequest(r.GetService(), r.GetLocality())
	if err != nil {
		return err
	}
	w := &hintWatch{
		hintServer: s, service: r.GetService(), caller: caller, callerScope: s.scope(stream.Context()),
		differences: r.GetDifferences(), send: stream.Send,
	}
	g, ctx := errgroup.WithContext(stream.Context())
	g.Go(func() error {
		return feed.Latest(ctx, s.store, s.planner.prefixesOf(r.GetService()), func(view *raftstore.View) error {
			if err := w.update(view); err != nil {
				return err
			}
			return pause(ctx, gather) // what changes meanwhile is one hint
		})
	})
	g.Go(func() error {
		tick := time.NewTicker(recheck)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
				if err := w.update(s.store.View()); err != nil {
					return err
				}
			}
		}
	})
	return raftstore.StatusError(g.Wait())
}

// hintWatch is one watched hint.
type hintWatch struct {
	*hintServer
	service     string
	caller      plan.Locality
	callerScope access.Scope
	differences bool
	send        func(*ententev1.Hint) error

	mu   sync.Mutex
	last *ententev1.Hint
}

// update computes the hint and sends it if it has changed.
func (w *hintWatch) update(view *raftstore.View) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last != nil && uint64(view.Revision()) < w.last.GetRevision() {
		return nil
	}
	h, err := w.cache.get(view, w.service, w.caller, w.callerScope)
	if err != nil {
		return err
	}
	if w.last != nil && proto.Equal(withRevision(h.hint, w.last.GetRevision()), w.last) {
		return nil
	}
	next := h.hint
	if w.differences && w.last != nil {
		if d := hintdiff.Between(w.last, h.hint); proto.Size(d) < proto.Size(h.hint) {
			next = d
		}
	}
	w.last = h.hint
	w.count(h)
	return w.send(next)
}

// withRevision returns a shallow copy of a hint with another revision.
func withRevision(h *ententev1.Hint, revision uint64) *ententev1.Hint {
	return &ententev1.Hint{
		Service: h.GetService(), Locality: h.GetLocality(), Revision: revision,
		Priorities: h.GetPriorities(), Excluded: h.GetExcluded(), Reason: h.GetReason(),
	}
}

func (s *hintServer) count(h *cachedHint) { s.counter.WithLabelValues(h.result).Inc() }

// resultOf returns the label under which a hint with this plan is counted.
func resultOf(p plan.Plan) string {
	result := hintOffered
	if p.Reason != "" {
		result = hintNone
	}
	for _, priority := range p.Priorities {
		if priority.Panic && priority.Load+priority.DegradedLoad > 0 {
			result = hintPanic
		}
	}
	return result
}

func parseHintRequest(service string, locality *ententev1.Locality) (plan.Locality, error) {
	if err := plan.CheckServiceName(service); err != nil {
		return plan.Locality{}, invalid(apierror.InField("service", err))
	}
	caller, err := plan.LocalityFromProto(locality)
	if err != nil {
		return plan.Locality{}, invalid(apierror.InField("locality", err))
	}
	return caller, nil
}

// invalid returns the status for a request that does not parse.
func invalid(err error) error { return apierror.Invalid(err) }
