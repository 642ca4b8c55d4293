// Package admission bounds the calls that a member has under way, by kind of load and by caller.
//
// A call enters before its message is read ([Control.Enter]) and gets a [Ticket], or is refused with advice when to try
// again. Its message has to arrive in time ([Receive]). Then it waits until it may run ([Ticket.Run]). More calls run
// than the cores need, and fewer wait than run: so what is admitted takes about as long under any load.
//
// What members send each other does not pass here: no load of callers delays it.
package admission

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Load is a kind of calls that is admitted apart from the others, so that none takes the time of another.
type Load string

// The kinds of load.
const (
	Reads   Load = "read"
	Writes  Load = "write"
	Signing Load = "sign"
	// Streams are those of clients, and Peering those of other clusters.
	Streams Load = "stream"
	Peering Load = "peer_stream"
)

// Capacity is how many calls of a load a member takes on at a time.
type Capacity struct {
	// Running calls are handled; Waiting ones have been admitted, and are handled next.
	Running, Waiting int
	// Share is how many of them one caller may have. For streams of other clusters it is a trust domain.
	Share int
}

// Capacities returns the Capacities of a machine with that many cores.
//
// A call that is admitted while all others of its load run and wait takes at most (1 + waiting/running) times as long
// as with none waiting: half again. Beyond that, a queue would only make calls late whose callers have given up. Reads
// and signatures take time of a core, so their numbers follow the cores; larger ones cost more refusals a second, whose
// time is missing for what was admitted. Writes wait for the disk, and are committed in
// groups. Streams are idle most of the time; each takes some 50 KiB.
func Capacities(cores int) map[Load]Capacity {
	of := func(running int) Capacity {
		return Capacity{Running: running, Waiting: running / 2, Share: running}
	}
	return map[Load]Capacity{
		Reads:   of(16 * cores),
		Writes:  of(64),
		Signing: of(16 * cores),
		Streams: {Running: 16384, Share: 4096},
		// One member of a cluster holds the stream to this one, and another one for a while when it moves.
		Peering: {Running: 16384, Share: 8},
	}
}

// retryAfter is the advice for a refused call. It is longer than a call takes.
const retryAfter = time.Second

// Control bounds the calls under way. It is safe for concurrent use.
type Control struct {
	loads   map[Load]*loadState
	refused *prometheus.CounterVec
}

// Collector returns the metric of refused calls.
func (a *Control) Collector() prometheus.Collector { return a.refused }

// loadState is what is under way of one load.
type loadState struct {
	name Load
	Capacity
	// tokens has an entry for each call that runs.
	tokens chan struct{}

	mu       sync.Mutex
	admitted int
	callers  map[any]int
}

// New returns a control with capacities.
func New(of map[Load]Capacity) *Control {
	a := &Control{
		loads: make(map[Load]*loadState),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_access_overload_total",
			Help: "Calls refused because too many of their kind were under way, by kind and by what was exhausted: " +
				"the member or the caller's share.",
		}, []string{"load", "limit"}),
	}
	for name, c := range of {
		a.loads[name] = &loadState{
			name: name, Capacity: c, tokens: make(chan struct{}, c.Running), callers: make(map[any]int),
		}
		a.refused.WithLabelValues(string(name), limitMember)
		a.refused.WithLabelValues(string(name), limitShare)
	}
	return a
}

const (
	limitMember = "member"
	limitShare  = "share"
)

// Ticket is the admission of one call.
type Ticket struct {
	of     *loadState
	caller any
	gone   bool
}

// Enter admits a call of a caller, which is a comparable value with a text. It returns an error with retry advice if
// too many calls are under way. It does not block.
func (a *Control) Enter(name Load, caller fmt.Stringer) (*Ticket, error) {
	l := a.loads[name]
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.callers[caller] >= l.Share:
		a.refused.WithLabelValues(string(name), limitShare).Inc()
		return nil, overloaded("%s has %d calls of the kind %s under way at this member, as many as one caller may "+
			"have", caller, l.Share, name)
	case l.admitted >= l.Running+l.Waiting:
		a.refused.WithLabelValues(string(name), limitMember).Inc()
		return nil, overloaded("this member has %d calls of the kind %s under way, as many as it takes on", l.admitted,
			name)
	}
	l.admitted++
	l.callers[caller]++
	return &Ticket{of: l, caller: caller}, nil
}

// overloaded returns the error of a call that is not taken on, which names when to try again.
func overloaded(format string, args ...any) error {
	s := status.Newf(codes.ResourceExhausted, "%s: try again after %s, or use another member",
		fmt.Sprintf(format, args...), retryAfter)
	if with, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)}); err == nil {
		s = with
	}
	return s.Err()
}

// Leave ends the admission. It may be called more than once, and on nil.
func (t *Ticket) Leave() {
	if t == nil {
		return
	}
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	if t.gone {
		return
	}
	t.gone = true
	t.of.admitted--
	if t.of.callers[t.caller]--; t.of.callers[t.caller] == 0 {
		delete(t.of.callers, t.caller)
	}
}

// Run waits until the call may be handled, and returns a function that ends that. It may be called on nil.
func (t *Ticket) Run(ctx context.Context) (done func(), err error) {
	if t == nil {
		return func() {}, nil
	}
	select {
	case t.of.tokens <- struct{}{}:
		return func() { <-t.of.tokens }, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}
