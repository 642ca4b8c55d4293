package authority

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
	// DefaultIssueRate is how many SVIDs a second one caller can ask of one member for: a tenth of what a member signs
	// on two cores, so that no caller alone can keep the others waiting.
	DefaultIssueRate = 500
	// DefaultIssueBurst lets a caller renew a host full of workloads at once.
	DefaultIssueBurst = 2000

	// maxLimitedCallers bounds the memory for callers, at some 200 bytes each. The one that was silent for longest is
	// forgotten, and begins with a full burst; every caller has a grant, so that nobody can make them up.
	maxLimitedCallers = 10_000
)

// limiter holds each caller to a rate of requests for SVIDs, on this member. Its methods can be called from any goroutine.
type limiter struct {
	rate    rate.Limit
	burst   int
	now     func() time.Time
	refused *prometheus.CounterVec

	mu      sync.Mutex
	callers *lru.Cache[string, *rate.Limiter]
}

// newLimiter makes a limiter; with a negative perSecond it holds nobody.
func newLimiter(perSecond float64, burst int, now func() time.Time, r prometheus.Registerer) (*limiter, error) {
	callers, err := lru.New[string, *rate.Limiter](maxLimitedCallers)
	if err != nil {
		return nil, err
	}
	l := &limiter{
		rate: rate.Limit(perSecond), burst: burst, now: now, callers: callers,
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_authority_rate_limited_total",
			Help: "Requests for SVIDs refused because their caller asked for more than issue_rate and issue_burst allow, by kind.",
		}, []string{"kind"}),
	}
	if perSecond < 0 {
		l.rate = rate.Inf
	}
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

// limitedAs names the caller for its rate. Processes of one user on the admin socket count as one.
func limitedAs(caller access.Caller) string {
	if caller.Kind() == access.Socket {
		return "admin socket"
	}
	return caller.String()
}

// take takes one request of the caller's share, or refuses it with RESOURCE_EXHAUSTED and says when to ask again.
func (l *limiter) take(caller access.Caller, kind plan.Kind) error {
	if l.rate == rate.Inf {
		return nil
	}
	now := l.now()
	of := l.of(limitedAs(caller))
	reservation := of.ReserveN(now, 1)
	delay := reservation.DelayFrom(now)
	if delay == 0 {
		return nil
	}
	reservation.CancelAt(now)
	l.refused.WithLabelValues(kind.String()).Inc()
	return limited(caller, l.rate, l.burst, delay)
}

func (l *limiter) of(name string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if of, ok := l.callers.Get(name); ok {
		return of
	}
	of := rate.NewLimiter(l.rate, l.burst)
	l.callers.Add(name, of)
	return of
}

// limited is the refusal, with a google.rpc.RetryInfo that gRPC clients know how to read.
func limited(caller access.Caller, perSecond rate.Limit, burst int, delay time.Duration) error {
	// Rounded up: who asks again a nanosecond early is refused again.
	delay = delay.Truncate(time.Millisecond) + time.Millisecond
	s := status.New(codes.ResourceExhausted, fmt.Sprintf("%s asked this member for more than %v SVIDs a second (and %d at once); ask again in %v, or ask another member",
		caller, float64(perSecond), burst, delay))
	if detailed, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)}); err == nil {
		s = detailed
	}
	return s.Err()
}

// retryDelay is when to ask again, as limited says; nil if an error does not.
func retryDelay(s *status.Status) *durationpb.Duration {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay()
		}
	}
	return nil
}
