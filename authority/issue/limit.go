package issue

import (
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/authority/plan"
)

const (
	// DefaultRate is the number of SVIDs a second that one caller can request from one member: a tenth of what a member
	// signs on two cores, so that no caller alone can delay the others.
	DefaultRate = 500
	// DefaultBurst lets a caller renew the workloads of a whole host at once.
	DefaultBurst = 2000

	// maxLimitedCallers bounds the memory for callers, at some 200 bytes each. The least recent one is dropped, and
	// restarts with a full burst. Every caller has a grant, so callers cannot be invented.
	maxLimitedCallers = 10_000
)

// limiter bounds the rate at which each caller requests SVIDs from this member. Its methods can be called from any
// goroutine.
type limiter struct {
	now     func() time.Time
	refused *prometheus.CounterVec

	mu      sync.Mutex
	rate    rate.Limit
	burst   int
	callers *lru.Cache[string, *rate.Limiter]
}

// newLimiter returns a limiter. A negative perSecond disables it.
func newLimiter(perSecond float64, burst int, now func() time.Time, r prometheus.Registerer) (*limiter, error) {
	callers, err := lru.New[string, *rate.Limiter](maxLimitedCallers)
	if err != nil {
		return nil, err
	}
	l := &limiter{
		now: now, callers: callers,
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_authority_rate_limited_total",
			Help: "Requests for SVIDs refused because their caller requested more than issue_rate and issue_burst " +
				"allow, by kind.",
		}, []string{"kind"}),
	}
	l.set(perSecond, burst)
	for _, kind := range plan.Kinds {
		l.refused.WithLabelValues(kind.String())
	}
	if r != nil {
		if err := r.Register(l.refused); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// set changes the limits. Each caller starts with a full burst. A negative perSecond disables them.
func (l *limiter) set(perSecond float64, burst int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate, l.burst = rate.Limit(perSecond), burst
	if perSecond < 0 {
		l.rate = rate.Inf
	}
	l.callers.Purge()
}

// limitedAs returns the name under which a caller is counted. All callers on the admin socket count as one.
func limitedAs(caller access.Caller) string {
	if caller.Kind() == access.Socket {
		return "admin socket"
	}
	return caller.String()
}

// admit counts one request of the caller, or refuses it with RESOURCE_EXHAUSTED and the time after which to retry.
func (l *limiter) admit(caller access.Caller, kind plan.Kind) error {
	now := l.now()
	of := l.of(limitedAs(caller))
	if of == nil {
		return nil
	}
	reservation := of.ReserveN(now, 1)
	delay := reservation.DelayFrom(now)
	if delay == 0 {
		return nil
	}
	reservation.CancelAt(now)
	l.refused.WithLabelValues(kind.String()).Inc()
	return limited(caller, of.Limit(), of.Burst(), delay)
}

// of returns the limiter of a caller, or nil if there are no limits.
func (l *limiter) of(name string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == rate.Inf {
		return nil
	}
	if of, ok := l.callers.Get(name); ok {
		return of
	}
	of := rate.NewLimiter(l.rate, l.burst)
	l.callers.Add(name, of)
	return of
}

// limited returns the refusal, with a google.rpc.RetryInfo that gRPC clients understand.
func limited(caller access.Caller, perSecond rate.Limit, burst int, delay time.Duration) error {
	// Rounded up: a retry that comes a nanosecond early is refused again.
	delay = delay.Truncate(time.Millisecond) + time.Millisecond
	s := status.New(
		codes.ResourceExhausted,
		fmt.Sprintf(
			"%s requested more than %v SVIDs a second (and %d at once) from this member; retry in %v, or on another "+
				"member",
			caller, float64(perSecond), burst, delay),
	)
	if detailed, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)}); err == nil {
		s = detailed
	}
	return s.Err()
}

// retryDelay returns the delay in a [limited] refusal, or nil for other errors.
func retryDelay(s *status.Status) *durationpb.Duration {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay()
		}
	}
	return nil
}
