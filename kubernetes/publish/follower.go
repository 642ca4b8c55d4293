package publish

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/client"
)

// Follower keeps the bundles that Entente shows the controller. It runs on every replica, so that a new leader has
// them.
type Follower struct {
	client *client.Client
	log    *slog.Logger

	mu          sync.Mutex
	source      *client.BundleSource // nil until all bundles have arrived once
	broken      error                // why no changes are received, or nil
	subscribers []chan struct{}
}

// NewFollower returns a follower, which runs by [Follower.Start].
func NewFollower(c *client.Client, log *slog.Logger) *Follower { return &Follower{client: c, log: log} }

// NeedLeaderElection implements the interface of controller-runtime.
func (f *Follower) NeedLeaderElection() bool { return false }

// Start follows the bundles until ctx ends. It returns an error that does not go away by itself, such as a missing
// grant.
func (f *Follower) Start(ctx context.Context) error {
	source, err := client.NewBundleSource(ctx, f.client, client.BundleSourceConfig{OnEvent: f.onEvent})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("read the bundles of Entente: %w", err)
	}
	defer func() { _ = source.Close() }()
	f.log.Info("bundles received", "count", len(source.Bundles()))
	for {
		f.set(func() { f.source, f.broken = source, nil })
		select {
		case <-ctx.Done():
			return nil
		case <-source.Updated():
		}
	}
}

func (f *Follower) onEvent(e client.Event) {
	f.log.Warn(e.Message, "error", e.Err)
	if e.Kind == client.WatchBroken {
		f.set(func() { f.broken = e.Err })
	}
}

// set changes the state and wakes the subscribers.
func (f *Follower) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	connected := 0.0
	if f.source != nil {
		bundlesGauge.Set(float64(len(f.source.Bundles())))
		if f.broken == nil {
			connected = 1
		}
	}
	connectedGauge.Set(connected)
	for _, s := range f.subscribers {
		select {
		case s <- struct{}{}:
		default:
		}
	}
}

// Bundles returns the bundles by trust domain; ok is false until they have arrived. broken is why the changes since are
// not received, or nil.
func (f *Follower) Bundles() (bundles []*bundle.Bundle, ok bool, broken error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.source == nil {
		return nil, false, f.broken
	}
	return f.source.Bundles(), true, f.broken
}

// subscribe returns a channel that receives a value after a change. Several changes can be one value.
func (f *Follower) subscribe() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := make(chan struct{}, 1)
	f.subscribers = append(f.subscribers, s)
	return s
}
