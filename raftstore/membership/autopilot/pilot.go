package autopilot

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
)

// table has the settings, in one row.
var table = raftstore.NewTable[*statev1.Autopilot]("autopilot")

const settingsKey = "settings"

// Pilot removes dead members while its member leads, and serves the settings on any member.
type Pilot struct {
	Store *raftstore.Store
	// Members returns the members in a state.
	Members func(v *raftstore.View) ([]Member, error)
	// Remove removes a member for a reason, with a line in the audit log.
	Remove func(ctx context.Context, id, why string) error
	// ClockSane reports whether this member's clock is near those of a majority.
	ClockSane func() bool
	Logger    hclog.Logger
	// Now is the clock, with a monotonic reading.
	Now func() time.Time
	// Every is how often the leader looks. If 0, it is [lookEvery].
	Every time.Duration
}

// lookEvery is far less than the shortest DeadAfter.
const lookEvery = 10 * time.Second

// removeLimit bounds one removal.
const removeLimit = 30 * time.Second

// Settings returns the settings in a state, and their generation.
func settings(r raftstore.Reader) (Settings, uint64, error) {
	row, found, err := table.Get(r, settingsKey)
	if err != nil || !found {
		return Defaults, 0, err
	}
	return of(row.Value), row.Value.GetGeneration(), nil
}

// Run removes members that have been dead for long, until ctx ends. It runs while this member leads.
func (p *Pilot) Run(ctx context.Context) {
	every := p.Every
	if every == 0 {
		every = lookEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	observed := seen{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := p.mend(ctx, observed); err != nil && ctx.Err() == nil {
			p.Logger.Warn("a member that has been dead for long could not be removed; trying again", "error", err)
		}
	}
}

// mend removes the member whose time has come, if there is one.
func (p *Pilot) mend(ctx context.Context, observed seen) error {
	v := p.Store.View()
	s, _, err := settings(v)
	if err != nil {
		return err
	}
	members, err := p.Members(v)
	if err != nil {
		return err
	}
	now := p.Now()
	observed.observe(members, now)
	verdict, found := due(Judge(s, members, now), now)
	if !found || !p.ClockSane() || !observed.long(verdict.ID, now) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, removeLimit)
	defer cancel()
	why := fmt.Sprintf("not heard for %s, and %d members replace it", s.DeadAfter,
		replacements(members, verdict.ID, now))
	if err := p.Remove(ctx, verdict.ID, why); err != nil {
		return fmt.Errorf("member %s: %w", verdict.ID, err)
	}
	p.Logger.Warn("a member that has been dead for long was removed; if it returns it must join again", "member",
		verdict.ID, "why", why)
	return nil
}

// Get serves ClusterService/GetAutopilot.
func (p *Pilot) Get(
	ctx context.Context, o raftstore.ReadOptions,
) (*ententev1.GetAutopilotResponse, error) {
	v, err := p.Store.Read(ctx, o)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	s, generation, err := settings(v)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	members, err := p.Members(v)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	answer := &ententev1.GetAutopilotResponse{
		Revision: uint64(v.Revision()), Autopilot: message(s, generation),
		FailureTolerance: uint32(Tolerance(members)), //nolint:gosec // fewer than members
		Warnings:         Warnings(members),
	}
	for _, verdict := range Judge(s, members, p.Now()) {
		m := &ententev1.AutopilotMember{Id: verdict.ID, Verdict: verdict.Text}
		if !verdict.Remove.IsZero() {
			m.RemoveTime = timestamppb.New(verdict.Remove)
		}
		answer.Members = append(answer.Members, m)
	}
	return answer, nil
}

func message(s Settings, generation uint64) *ententev1.Autopilot {
	return &ententev1.Autopilot{
		RemoveDeadMembers: s.Remove, DeadAfter: durationpb.New(s.DeadAfter),
		MinQuorum: uint32(s.MinQuorum), //nolint:gosec // at most MaxMinQuorum
		Etag:      etag.Of(generation),
	}
}

// Update serves ClusterService/UpdateAutopilot.
func (p *Pilot) Update(
	ctx context.Context, r *ententev1.UpdateAutopilotRequest,
) (*ententev1.UpdateAutopilotResponse, error) {
	paths := r.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		return nil, apierror.Invalid(apierror.InField("update_mask",
			fmt.Errorf("update_mask names no field; known are %v", names)))
	}
	answer := &ententev1.UpdateAutopilotResponse{}
	revision, err := p.Store.Update(ctx, func(tx *raftstore.Tx) error {
		s, generation, err := settings(tx)
		if err != nil {
			return err
		}
		if err := etag.Check(r.GetEtag(), "the autopilot", etag.Of(generation)); err != nil {
			return err
		}
		next, err := s.with(r.GetAutopilot(), paths)
		if err != nil {
			return apierror.Invalid(err)
		}
		if next != s {
			generation = raftstore.NextGeneration(tx, generation)
		}
		answer.Autopilot = message(next, generation)
		if next == s {
			return nil
		}
		return table.Put(tx, settingsKey, next.row(generation))
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	answer.Revision = uint64(revision)
	return answer, nil
}

// names are the fields that can be changed.
var names = []string{"remove_dead_members", "dead_after", "min_quorum"}

// with returns the settings with the named fields of a message.
func (s Settings) with(m *ententev1.Autopilot, paths []string) (Settings, error) {
	for _, path := range paths {
		if !slices.Contains(names, path) {
			return s, apierror.InField("update_mask", fmt.Errorf("update_mask names %q; known are %v", path, names))
		}
		switch path {
		case "remove_dead_members":
			s.Remove = m.GetRemoveDeadMembers()
		case "dead_after":
			s.DeadAfter = m.GetDeadAfter().AsDuration()
			if !m.GetDeadAfter().IsValid() || s.DeadAfter < MinDeadAfter || s.DeadAfter > MaxDeadAfter {
				return s, apierror.InField("autopilot.dead_after",
					fmt.Errorf("dead_after is %s; it must be from %s to %s", s.DeadAfter, MinDeadAfter, MaxDeadAfter))
			}
		case "min_quorum":
			s.MinQuorum = int(m.GetMinQuorum())
			if s.MinQuorum < 1 || s.MinQuorum > MaxMinQuorum {
				return s, apierror.InField("autopilot.min_quorum",
					fmt.Errorf("min_quorum is %d; it must be from 1 to %d", s.MinQuorum, MaxMinQuorum))
			}
		}
	}
	return s, nil
}
