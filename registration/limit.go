package registration

import (
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ententehq/entente/internal/origin"
)

const (
	// hostRate and hostBurst limit the attestations with unknown keys from one address or site, each of which costs a
	// round through the leader. Many agents can be behind one address.
	hostRate  = rate.Limit(10)
	hostBurst = 100
	// evidenceRate and evidenceBurst limit the agents that evidence other than tokens makes on this member: each is a
	// write, and evidence can be shown again.
	evidenceRate  = rate.Limit(50)
	evidenceBurst = 200
	// evidenceEvery is the time between two agents of one node by evidence.
	evidenceEvery = time.Minute
	// maxHosts bounds the memory for addresses. The least recent one is dropped, and starts again with a full burst.
	maxHosts = 10_000
)

// limits bound the rate of attestations. Its methods can be called from any goroutine.
type limits struct {
	evidence *rate.Limiter

	mu    sync.Mutex
	hosts *lru.Cache[string, *rate.Limiter]
}

func newLimits() *limits {
	hosts, err := lru.New[string, *rate.Limiter](maxHosts)
	if err != nil {
		panic(err) // the size is positive
	}
	return &limits{evidence: rate.NewLimiter(evidenceRate, evidenceBurst), hosts: hosts}
}

// admit counts an attestation with an unknown key, or refuses it.
func (l *limits) admit(from origin.Origin, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range []string{from.Host, from.Site} {
		if key == "" {
			continue
		}
		of, ok := l.hosts.Get(key)
		if !ok {
			of = rate.NewLimiter(hostRate, hostBurst)
			l.hosts.Add(key, of)
		}
		if !of.AllowN(now, 1) {
			return exhausted(time.Second, "%s has attested more than %v agents a second (and %d at once) at this "+
				"member", key, float64(hostRate), hostBurst)
		}
	}
	return nil
}

// enroll counts an agent that evidence makes, or refuses it.
func (l *limits) enroll(now time.Time) error {
	if l.evidence.AllowN(now, 1) {
		return nil
	}
	return exhausted(time.Second, "this member admits %v agents a second (and %d at once) by evidence",
		float64(evidenceRate), evidenceBurst)
}

// exhausted returns the refusal of what may be tried again after a time.
func exhausted(after time.Duration, format string, args ...any) error {
	after = after.Truncate(time.Millisecond) + time.Millisecond // a retry that comes early is refused again
	s := status.Newf(codes.ResourceExhausted, "%s: try again after %s", fmt.Sprintf(format, args...), after)
	if with, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)}); err == nil {
		s = with
	}
	return s.Err()
}
