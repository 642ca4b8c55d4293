package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/ententehq/entente/raftstore/internal/machine"
)

// Serving is whether a member may serve its state. A restarted member first loads its state, exactly up to the newest
// revision that it had published. Then it serves once it has applied everything that was acknowledged when it reached a
// leader. If it finds none, it serves what it has loaded: that is committed, and no older than what it served before.
// Once it serves, it never stops to.
type Serving struct {
	node       *node
	machine    *machine.Machine
	reads      *reads
	life       *lifetime
	leadership *leadership
	log        hclog.Logger
	fail       func(error)

	// target is a revision that this member must reach, as far as it is known.
	target atomic.Uint64
	// confirmed means that the state was as new as the cluster's at least once since the start.
	confirmed atomic.Bool
	// serves is closed once the member serves.
	serves chan struct{}
}

func newServing(s *Store) *Serving {
	return &Serving{
		node: s.node, machine: s.machine, reads: s.reads, life: s.life, leadership: s.leadership, log: s.log,
		fail: s.fail, serves: make(chan struct{}),
	}
}

// AwaitLoaded returns once [Store.View] is at least as new as what this member had published before it stopped, or with
// the error of ctx.
func (v *Serving) AwaitLoaded(ctx context.Context) error { return v.await(ctx, v.machine.Resumed()) }

// Await returns once this member serves, or with the error of ctx.
func (v *Serving) Await(ctx context.Context) error { return v.await(ctx, v.serves) }

func (v *Serving) await(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-v.life.done():
		return ErrClosed
	}
}

// Err returns nil if this member serves, and a [StartingError] otherwise.
func (v *Serving) Err() error {
	select {
	case <-v.serves:
		return nil
	default:
	}
	if at, of, below := v.machine.Resuming(); below {
		return &StartingError{Revision: Revision(at), Of: Revision(max(of, v.target.Load()))}
	}
	at := v.machine.State().Revision
	if of := v.target.Load(); of > at {
		return &StartingError{Revision: Revision(at), Of: Revision(of)}
	}
	return &StartingError{Revision: Revision(at)}
}

// Unconfirmed returns the revision of the present state, and whether newer ones may exist that no leader can bring to
// this member: it has found none since it started, or has known none for Timing.LeaderWait.
func (v *Serving) Unconfirmed() (Revision, bool) {
	at := Revision(v.machine.State().Revision)
	return at, !v.confirmed.Load() || v.leadership.leaderlessFor() >= v.leadership.leaderWait
}

// Contact returns the last contact with a leader that is on this member's disk from before its start. The zero time
// means that there is none.
func (v *Serving) Contact() time.Time { return v.node.disk.Applied.Last().Contact }

// RecordContact records a contact with a leader, for [Serving.Contact] after a restart.
func (v *Serving) RecordContact(at time.Time) error { return v.node.disk.Applied.RecordContact(at) }

// check returns why a call cannot go on: the store is closed, its context has ended, or there is no state yet.
func (v *Serving) check(ctx context.Context) error {
	if err := v.life.check(ctx); err != nil {
		return err
	}
	if _, _, below := v.machine.Resuming(); below {
		return v.Err()
	}
	return nil
}

// run loads the state and finds out whether it may be served.
func (v *Serving) run(ctx context.Context) {
	began := time.Now()
	if err := v.machine.Load(v.node.disk.Log, func() bool { return ctx.Err() == nil }); err != nil {
		v.fail(fmt.Errorf("member stopped: load the state that it had before: %w", err))
		return
	}
	if had := v.node.disk.Applied.Last(); had.Revision > 0 && ctx.Err() == nil {
		v.log.Info("loaded the state that this member had published before", "revision", had.Revision,
			"duration", time.Since(began))
	}
	for ctx.Err() == nil {
		switch err := v.confirm(ctx); {
		case err == nil:
			v.confirmed.Store(true)
			v.serve()
			return
		case errors.Is(err, ErrNoLeader) && v.loaded():
			if v.serve() {
				v.log.Warn("this member finds no leader and serves the state that it had before it stopped; what the "+
					"other members changed since then is not known here", "revision", v.machine.State().Revision)
			}
		}
		if v.leadership.pause(ctx, lastPause) != nil {
			return
		}
	}
}

// loaded reports whether the state is known to be at least as new as everything that this member has published.
func (v *Serving) loaded() bool {
	had := v.node.disk.Applied.Last()
	_, _, below := v.machine.Resuming()
	return had.Known && had.Revision > 0 && !below
}

// serve lets the member serve, and reports whether it did not before. Only run calls it.
func (v *Serving) serve() (first bool) {
	select {
	case <-v.serves:
		return false
	default:
		close(v.serves)
		return true
	}
}

// confirm returns nil once this member has applied everything that was acknowledged before, by any member.
func (v *Serving) confirm(ctx context.Context) error {
	index, err := v.reads.index(ctx)
	if err != nil {
		return err
	}
	v.target.Store(index)
	return v.reads.reach(ctx, index)
}
