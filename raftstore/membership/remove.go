package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/autopilot"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/raftstore/membership/removal"
)

// Removal describes a member that is removed, to the other rooms.
type Removal struct {
	MemberID    string
	Compromised bool
}

// remove removes a member. It begins with the vote and a mark in the member's row, so that a member that runs learns of
// its removal from what it applies; a compromised one is cut off at once. Then the member leaves Raft, so that it has
// no connection to the leader any more, and then the tables, so that what it proposed until then is covered. If the
// leader stops in between, the next one completes it.
func (c *changes) remove(ctx context.Context, id string, compromised bool) (raftstore.Revision, error) {
	if err := memberid.CheckID(id); err != nil {
		return 0, apierror.Invalid(apierror.InField("id", err))
	}
	if !c.leader.leads() {
		return 0, raftstore.ErrNotLeader
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	return c.removeHeld(ctx, id, compromised)
}

// removeHeld is remove while c.changing is held.
func (c *changes) removeHeld(ctx context.Context, id string, compromised bool) (raftstore.Revision, error) {
	if err := c.removeServer(ctx, id, compromised); err != nil {
		return 0, err
	}
	c.onChange()
	revision, err := c.store.Update(ctx, func(tx *raftstore.Tx) error {
		return c.deleteMember(tx, Removal{MemberID: id, Compromised: compromised})
	})
	if err == nil {
		c.log.Info("the member was removed", "member", id, "compromised", compromised, "revision", revision)
	}
	return revision, err
}

// removeServer removes a member from the Raft configuration, if it is there and that is allowed.
func (c *changes) removeServer(ctx context.Context, id string, compromised bool) error {
	v, err := c.store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return err
	}
	_, stored, err := Members.Get(v, id)
	if err != nil {
		return err
	}
	servers := c.store.Servers().List()
	at := slices.IndexFunc(servers, func(s raftstore.Server) bool { return s.MemberID == id })
	inRaft := at >= 0
	switch {
	case !stored && !inRaft:
		return status.Errorf(codes.NotFound, "the cluster has no member %s; see `entente cluster members`", id)
	case !inRaft:
		return nil
	}
	reachable, settled := c.leader.reachable(), c.leader.settled()
	if err := removable(servers, func(other string) bool { return reachable(other) || !settled }, id); err != nil {
		return err
	}
	if id == c.self {
		if err := c.store.Servers().TransferLeadership(ctx, ""); err != nil {
			return err
		}
		return fmt.Errorf("member %s led and has transferred leadership: %w", id, raftstore.ErrNotLeader)
	}
	if stored && !compromised {
		if err := c.markRemoved(ctx, servers[at]); err != nil {
			return err
		}
	}
	if err := c.store.Servers().Remove(ctx, id); err != nil && !errors.Is(err, raftstore.ErrNotMember) {
		return err
	}
	return nil
}

// noticeLimit bounds how long a removal waits until the member has applied its mark: some heartbeats.
const noticeLimit = 5 * time.Second

// markRemoved removes the vote of a member, marks its row, and waits until the member has applied that, if it is
// reachable.
func (c *changes) markRemoved(ctx context.Context, server raftstore.Server) error {
	if server.Voter {
		if err := c.store.Servers().Demote(ctx, server.MemberID); err != nil {
			return err
		}
	}
	revision, err := c.store.Update(ctx, func(tx *raftstore.Tx) error {
		row, found, err := Members.Get(tx, server.MemberID)
		if err != nil || !found || row.Value.GetRemoveTime() != nil {
			return err
		}
		row.Value.RemoveTime = timestamppb.New(c.now())
		return Members.Put(tx, server.MemberID, row.Value)
	})
	if err != nil {
		return err
	}
	limit := time.NewTimer(noticeLimit)
	defer limit.Stop()
	poll := time.NewTicker(leaderPoll)
	defer poll.Stop()
	for c.leader.reachable()(server.MemberID) {
		if b, _ := c.leader.beats.Received.Get(server.MemberID); b.applied >= revision {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return nil
		case <-poll.C:
		}
	}
	return nil
}

// removalsEvery is how often the leader looks for removals that were begun and not completed.
const removalsEvery = 2 * time.Second

// completeRemovals completes the removals that an earlier leader has begun, while this member leads.
func (c *changes) completeRemovals(ctx context.Context) {
	every := time.NewTicker(removalsEvery)
	defer every.Stop()
	for {
		if err := c.completeMarked(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("the removal of a member could not be completed; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

func (c *changes) completeMarked(ctx context.Context) error {
	if !c.changing.TryLock() {
		return nil // a removal may be under way
	}
	defer c.changing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	rows, err := Members.List(c.store.View(), "")
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.Value.GetRemoveTime() == nil {
			continue
		}
		if _, err := c.removeHeld(ctx, row.Key, false); err != nil {
			return fmt.Errorf("member %s: %w", row.Key, err)
		}
	}
	return nil
}

// piloted returns the members as the autopilot judges them. Which are alive is what the leader has committed.
func (c *changes) piloted(v *raftstore.View) ([]autopilot.Member, error) {
	rows, err := Members.List(v, "")
	if err != nil {
		return nil, err
	}
	marked, err := Alive(v)
	if err != nil {
		return nil, err
	}
	servers := c.store.Servers().List()
	members := make([]autopilot.Member, 0, len(rows))
	for _, row := range rows {
		voter := slices.ContainsFunc(servers, func(s raftstore.Server) bool { return s.MemberID == row.Key && s.Voter })
		members = append(members, autopilot.Member{
			ID: row.Key, Zone: row.Value.GetZone(), Voter: voter, NonVoter: row.Value.GetNonVoter(),
			Alive:  slices.Contains(marked, row.Key),
			Joined: timeOf(row.Value.GetJoinTime()), LastHeard: timeOf(row.Value.GetLastHeard()),
		})
	}
	return members, nil
}

// removeDead returns the removal of a dead member by the leader itself.
func (c *changes) removeDead(auditor Auditor) func(ctx context.Context, id, why string) error {
	return func(ctx context.Context, id, why string) error {
		return auditor.AuditRemoval(id, why, func() (raftstore.Revision, error) {
			if c.leader.reachable()(id) {
				return 0, fmt.Errorf("member %s has returned meanwhile", id)
			}
			return c.remove(ctx, id, false)
		})
	}
}

// deleteMember deletes a member from all tables.
func (c *changes) deleteMember(tx *raftstore.Tx, r Removal) error {
	for _, fn := range c.onRemove {
		if err := fn(tx, r); err != nil {
			return fmt.Errorf("remove member %s: %w", r.MemberID, err)
		}
	}
	row, found, err := Members.Get(tx, r.MemberID)
	if err != nil {
		return err
	}
	if identity := row.Value.GetIdentity(); found && len(identity) == len(memberid.Digest{}) {
		if err := removal.Record(tx, r.MemberID, memberid.Digest(identity), c.now()); err != nil {
			return err
		}
	}
	return errors.Join(Members.Delete(tx, r.MemberID), alive.Delete(tx, r.MemberID), voidAll(tx))
}

// removalEffects returns what the removal of a member would do, refused as the removal would be. Which members the
// leader can reach is known to it alone: another member takes those that are marked alive.
func (s clusterService) removalEffects(
	ctx context.Context, req *ententev1.RemoveMemberRequest,
) (*ententev1.RemoveMemberResponse, error) {
	removed := Removal{MemberID: req.GetId(), Compromised: req.GetCompromised()}
	var answer *ententev1.RemoveMemberResponse
	err := raftstore.Try(ctx, s.store, func(tx *raftstore.Tx) error {
		answer = &ententev1.RemoveMemberResponse{}
		if _, found, err := Members.Get(tx, removed.MemberID); err != nil {
			return err
		} else if !found {
			return status.Errorf(codes.NotFound, "the cluster has no member %s; see `entente cluster members`",
				removed.MemberID)
		}
		isAlive := func(id string) bool { _, found, err := alive.Get(tx, id); return err == nil && found }
		if err := removable(s.store.Servers().List(), isAlive, removed.MemberID); err != nil {
			return err
		}
		for _, fn := range s.changes.onRemove {
			if err := fn(tx, removed); err != nil {
				return err
			}
		}
		tokens, err := live(tx, s.tokens.now())
		if err != nil {
			return err
		}
		if err := s.report(tx, removed, answer); err != nil {
			return err
		}
		answer.Effects = effectsOf(removed, answer, len(tokens))
		return nil
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	answer.Revision = uint64(s.store.View().Revision())
	return answer, nil
}

func effectsOf(removed Removal, answer *ententev1.RemoveMemberResponse, tokens int) []*ententev1.Effect {
	out := []*ententev1.Effect{{
		Kind: "member", Subject: removed.MemberID,
		Detail: "loses its vote, its connections and its identity key; it can join again with an empty data folder " +
			"only",
	}}
	for _, r := range answer.GetRemaining() {
		out = append(out, &ententev1.Effect{
			Kind: "authority", Subject: r.GetAuthorityId(),
			Detail: "of " + r.GetTrustDomain() + ": verifiers accept what it signed (" + r.GetDetail() + ") until",
			Time:   r.GetUntil(),
		})
	}
	if len(answer.GetRemaining()) == 0 {
		out = append(out, &ententev1.Effect{
			Kind: "svids", Subject: "all that it signed",
			Detail: "are refused as soon as verifiers have the new bundle",
		})
	}
	for _, g := range answer.GetRevokedGrants() {
		out = append(out, &ententev1.Effect{
			Kind: "grant", Subject: g.GetSpiffeId(),
			Detail: "loses the role " + strings.ToLower(strings.TrimPrefix(g.GetRole().String(), "ROLE_")) +
				", which was granted on the member",
		})
	}
	if tokens > 0 {
		out = append(out, &ententev1.Effect{
			Kind: "token", Subject: fmt.Sprintf("%d join tokens", tokens), Detail: "are void",
		})
	}
	return out
}
