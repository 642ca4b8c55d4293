package invitation

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// The caller is not authenticated before its signature is verified and the leader has confirmed a read. These
	// limits per second, and their bursts, apply to all hosts together and to each host, so that one host does not lock
	// the others out.
	allRate, allBurst         = 100, 200
	oneHostRate, oneHostBurst = 10, 20
	maxHosts                  = 4096
	forgetAfter               = time.Minute
)

// rateLimit limits calls that are not authenticated.
type rateLimit struct {
	all *rate.Limiter

	mu    sync.Mutex
	hosts map[string]*hostLimit
}

type hostLimit struct {
	calls *rate.Limiter
	last  time.Time
}

func newRateLimit() *rateLimit {
	return &rateLimit{all: rate.NewLimiter(allRate, allBurst), hosts: map[string]*hostLimit{}}
}

// allow reports whether a call of a host is handled now.
func (s *rateLimit) allow(host string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, known := s.hosts[host]
	if !known {
		if len(s.hosts) >= maxHosts {
			s.forget(now)
		}
		h = &hostLimit{calls: rate.NewLimiter(oneHostRate, oneHostBurst)}
		s.hosts[host] = h
	}
	h.last = now
	return h.calls.AllowN(now, 1) && s.all.AllowN(now, 1)
}

// forget removes hosts that were idle for forgetAfter, whose burst is full again. If all are active, it removes all.
func (s *rateLimit) forget(now time.Time) {
	for host, h := range s.hosts {
		if age := now.Sub(h.last); age < 0 || age > forgetAfter {
			delete(s.hosts, host)
		}
	}
	if len(s.hosts) >= maxHosts {
		clear(s.hosts)
	}
}
