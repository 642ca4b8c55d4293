package federation

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// Nobody who comes by an invitation is known before what he says was looked at, which costs a signature and a question to the leader: so
	// many calls a second are looked at, and so many at once, of all hosts together and of each, so that none keeps the others out.
	strangerRate, strangerBurst = 100, 200
	oneHostRate, oneHostBurst   = 10, 20
	maxStrangerHosts            = 4096
	strangerForgotten           = time.Minute
)

// strangers bounds the calls of those who are not known.
type strangers struct {
	all *rate.Limiter

	mu    sync.Mutex
	hosts map[string]*strangerHost
}

type strangerHost struct {
	calls *rate.Limiter
	last  time.Time
}

func newStrangers() *strangers {
	return &strangers{all: rate.NewLimiter(strangerRate, strangerBurst), hosts: map[string]*strangerHost{}}
}

// allow reports whether a call of a host may be looked at now.
func (s *strangers) allow(host string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, known := s.hosts[host]
	if !known {
		if len(s.hosts) >= maxStrangerHosts {
			s.forget(now)
		}
		h = &strangerHost{calls: rate.NewLimiter(oneHostRate, oneHostBurst)}
		s.hosts[host] = h
	}
	h.last = now
	return h.calls.AllowN(now, 1) && s.all.AllowN(now, 1)
}

// forget makes room: those who have been silent have their burst again anyway, and where all call it begins anew.
func (s *strangers) forget(now time.Time) {
	for host, h := range s.hosts {
		if age := now.Sub(h.last); age < 0 || age > strangerForgotten {
			delete(s.hosts, host)
		}
	}
	if len(s.hosts) >= maxStrangerHosts {
		clear(s.hosts)
	}
}
