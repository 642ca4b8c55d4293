package invitation

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// Nobody who comes by an invitation is known before what he says was looked at, which costs a signature and a
	// question to the leader: so many calls a second are looked at, and so many at once, of all hosts together and of
	// each, so that none keeps the others out.
	allRate, allBurst         = 100, 200
	oneHostRate, oneHostBurst = 10, 20
	maxHosts                  = 4096
	forgetAfter               = time.Minute
)

// strangers bounds the calls of those who are not known.
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

// allow reports whether a call of a host may be looked at now.
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

// forget makes room: those who have been silent have their burst again anyway, and where all call it begins anew.
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
