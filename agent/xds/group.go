package xds

import (
	"context"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/agent/discovery"
	"github.com/ententehq/entente/internal/xdsupdate"
)

// group is the programs of one identity and one kind, with what their stream has received.
type group struct {
	cfg      Config
	identity string
	node     *core.Node
	wake     chan struct{}
	end      context.CancelFunc

	mu      sync.Mutex
	changed chan struct{} // closed at the next change
	// programs is the number of open streams, and idle since when there are none.
	programs int
	idle     time.Time
	// subscriptions has the number of streams of each, and since when there are none.
	subscriptions map[typed]*users
	resources     map[typed]*xdsupdate.Resource
	// stale are the resources without instances of foreign domains, made when first needed.
	stale map[typed]*xdsupdate.Resource
	// known are the subscriptions that a member has answered.
	known map[typed]bool
	// live is true while a stream to a member is open; disconnected is when the last one ended.
	live         bool
	disconnected time.Time
	err          error
	// age is a timer for when what was received is too old.
	age *time.Timer
}

type users struct {
	count int
	idle  time.Time
}

// maxSubscriptions bounds the subscriptions of a group: those of one type that a member allows on a stream.
const maxSubscriptions = 4096

func newGroup(cfg Config, identity string, node *core.Node) *group {
	now := time.Now()
	g := &group{
		cfg: cfg, identity: identity, node: node, wake: make(chan struct{}, 1), changed: make(chan struct{}),
		idle: now, disconnected: now, subscriptions: map[typed]*users{}, resources: map[typed]*xdsupdate.Resource{},
		stale: map[typed]*xdsupdate.Resource{}, known: map[typed]bool{},
	}
	g.age = time.AfterFunc(cfg.MaxStale, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.notify()
	})
	return g
}

func (g *group) log() hclog.Logger { return g.cfg.Logger.With("identity", g.identity) }

// watch returns a channel that is closed at the next change, and the error with which a member has refused the group.
func (g *group) watch() (<-chan struct{}, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed, g.err
}

// notify wakes the programs' streams. g.mu is held.
func (g *group) notify() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// use adds to the number of open streams.
func (g *group) use(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.programs += n
	g.idle = time.Now()
}

// refused reports whether a member has refused the group.
func (g *group) refused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err != nil
}

// unused reports whether no program uses the group, and since when.
func (g *group) unused() (since time.Time, unused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.idle, g.programs == 0
}

// subscribe takes over changes of one stream's subscriptions.
func (g *group) subscribe(added, dropped []typed) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(added) > 0 && len(g.subscriptions)+len(added) > maxSubscriptions {
		g.discard(func(*users) bool { return true })
		if len(g.subscriptions)+len(added) > maxSubscriptions {
			return status.Errorf(codes.ResourceExhausted, "the programs of %s subscribe to more than %d resources",
				g.identity, maxSubscriptions)
		}
	}
	for _, key := range added {
		u := g.subscriptions[key]
		if u == nil {
			u = &users{}
			g.subscriptions[key] = u
		}
		u.count++
	}
	for _, key := range dropped {
		if u := g.subscriptions[key]; u != nil {
			u.count--
			u.idle = time.Now()
		}
	}
	select {
	case g.wake <- struct{}{}:
	default:
	}
	return nil
}

// discard ends unused subscriptions for which old returns true, with their resources. g.mu is held.
func (g *group) discard(old func(*users) bool) {
	for key, u := range g.subscriptions {
		if u.count > 0 || !old(u) {
			continue
		}
		delete(g.subscriptions, key)
		delete(g.known, key)
		for r := range g.resources {
			if r.of == key.of && (r == key || key.name == everything) && !g.subscribed(r) {
				delete(g.resources, r)
				delete(g.stale, r)
			}
		}
	}
}

// subscribed reports whether a resource is covered by a subscription. g.mu is held.
func (g *group) subscribed(key typed) bool {
	return g.subscriptions[key] != nil || g.subscriptions[typed{key.of, everything}] != nil
}

// sweep ends what no program has used for a while, and reports whether the group itself is unused. Nothing that was
// received ends without a member: it could not be received again.
func (g *group) sweep(now time.Time) (unused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	unused = g.programs == 0 && now.Sub(g.idle) > linger
	if !g.live {
		return unused && len(g.resources) == 0
	}
	g.discard(func(u *users) bool { return now.Sub(u.idle) > linger })
	select {
	case g.wake <- struct{}{}:
	default:
	}
	return unused
}

// wanted returns what a stream is to have of a type.
func (g *group) wanted(
	t xdsupdate.Type, of discovery.Subscription,
) (wanted map[string]*xdsupdate.Resource, complete bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := !g.live && time.Since(g.disconnected) >= g.cfg.MaxStale
	wanted, complete = map[string]*xdsupdate.Resource{}, true
	add := func(key typed) error {
		r := g.resources[key]
		if old && t == xdsupdate.Endpoints && !r.Absent {
			if g.stale[key] == nil {
				if g.stale[key], err = withoutForeign(r); err != nil {
					return status.Errorf(codes.Internal, "leave out instances of foreign domains: %v", err)
				}
			}
			r = g.stale[key]
		}
		wanted[key.name] = r
		return nil
	}
	if of.Wildcard {
		complete = g.known[typed{t, everything}]
		for key := range g.resources {
			if key.of == t {
				if err := add(key); err != nil {
					return nil, false, err
				}
			}
		}
	}
	for _, name := range of.Names {
		key := typed{t, name}
		if g.resources[key] == nil {
			complete = false
			continue
		}
		if err := add(key); err != nil {
			return nil, false, err
		}
	}
	return wanted, complete, nil
}

// fail ends the streams of all programs.
func (g *group) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
	g.notify()
}
