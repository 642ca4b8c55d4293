package membership

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// The repair of a member that lost its log, or whose state is not that of the others. An administrator orders it on the
// leader: the member's vote is removed by a committed change, and the order is written to its row, which keeps the
// leader from giving the vote back. The member fetches the order when it is started and cannot use its files, or stops
// when it reads the order in its own row; it deletes its files, remembers the order in the new ones, receives the
// state, and then removes the order from its row.

// repair orders the repair of a member, on the leader. An order that is under way stays.
func (c *changes) repair(ctx context.Context, id string, now time.Time) (raftstore.Revision, error) {
	if err := memberid.CheckID(id); err != nil {
		return 0, apierror.Invalid(apierror.InField("id", err))
	}
	if !c.leader.leads() {
		return 0, raftstore.ErrNotLeader
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	if _, err := c.store.Read(ctx, raftstore.ReadOptions{Linearizable: true}); err != nil {
		return 0, err
	}
	servers := c.store.Servers().List()
	reachable, settled := c.leader.reachable(), c.leader.settled()
	if err := repairable(servers, func(other string) bool { return reachable(other) || !settled }, id); err != nil {
		return 0, err
	}
	if id == c.self {
		if err := c.store.Servers().TransferLeadership(ctx, ""); err != nil {
			return 0, err
		}
		return 0, fmt.Errorf("member %s led and has transferred leadership: %w", id, raftstore.ErrNotLeader)
	}
	if err := c.store.Servers().Demote(ctx, id); err != nil {
		return 0, err
	}
	revision, err := c.store.Update(ctx, func(tx *raftstore.Tx) error {
		row, found, err := Members.Get(tx, id)
		if err != nil {
			return err
		}
		if !found {
			return status.Errorf(codes.NotFound, "the cluster has no member %s; see `entente cluster members`", id)
		}
		if row.Value.GetRepair() != nil {
			return nil
		}
		row.Value.Repair = &statev1.Repair{Id: rand.Text(), RequestTime: timestamppb.New(now)}
		return Members.Put(tx, id, row.Value)
	})
	if err == nil {
		c.log.Info("the repair of a member was ordered", "member", id, "revision", revision)
	}
	return revision, err
}

// RepairServer implements MemberService.
func (s memberService) RepairServer(
	ctx context.Context, req *ententev1.RepairServerRequest,
) (*ententev1.RepairServerResponse, error) {
	if _, err := s.authenticate(ctx); err != nil {
		return nil, err
	}
	revision, err := s.changes.repair(ctx, req.GetId(), s.now())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.RepairServerResponse{Revision: uint64(revision)}, nil
}

// GetRepair implements MemberService.
func (s memberService) GetRepair(
	ctx context.Context, _ *ententev1.GetRepairRequest,
) (*ententev1.GetRepairResponse, error) {
	id, err := s.authenticate(ctx)
	if err != nil {
		return nil, err
	}
	store := s.changes.store
	v, err := store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	row, found, err := Members.Get(v, id)
	if err != nil || !found || row.Value.GetRepair() == nil {
		return &ententev1.GetRepairResponse{}, raftstore.StatusError(err)
	}
	for _, server := range store.Servers().List() {
		if server.MemberID == id && !server.Voter {
			return &ententev1.GetRepairResponse{
				Id: row.Value.GetRepair().GetId(), Term: store.Term(),
				Incarnation: raftstore.IntegrityOf(store).LastIncarnation(server),
			}, nil
		}
	}
	return nil, status.Errorf(codes.Unavailable, "this member does not have the change yet that removed the vote of "+
		"member %s; try another one", id)
}

// RepairMember implements ClusterService.
func (s clusterService) RepairMember(
	ctx context.Context, req *ententev1.RepairMemberRequest,
) (*ententev1.RepairMemberResponse, error) {
	var revision raftstore.Revision
	_, err := s.leader.forward(ctx,
		func(ctx context.Context) (err error) {
			revision, err = s.changes.repair(ctx, req.GetId(), s.tokens.now())
			return err
		},
		func(ctx context.Context, leader ententev1.MemberServiceClient) error {
			answer, err := leader.RepairServer(ctx, &ententev1.RepairServerRequest{Id: req.GetId()})
			revision = raftstore.Revision(answer.GetRevision())
			return err
		})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.RepairMemberResponse{Revision: uint64(revision)}, nil
}

// repairTimeout bounds how long a starting member tries one other member.
const repairTimeout = 5 * time.Second

// FetchRepair returns the cluster's order to this member to delete its files, from the members in its directory. It
// returns false if there is none. It needs no store.
func FetchRepair(
	ctx context.Context, self string, from *directory.Directory, conns Conns,
) (raftstore.Rebuilt, bool, error) {
	members, _ := from.Members()
	failures := []error{errors.New("no other member is known")}
	for _, m := range members {
		if m.ID == self {
			continue
		}
		answer, err := fetchRepair(ctx, m.ID, conns)
		if err == nil {
			return raftstore.Rebuilt{
				Order: answer.GetId(), Incarnation: answer.GetIncarnation(), Term: answer.GetTerm(),
			}, answer.GetId() != "", nil
		}
		failures = append(failures, fmt.Errorf("member %s: %w", m.ID, err))
	}
	return raftstore.Rebuilt{}, false, failures[len(failures)-1]
}

func fetchRepair(ctx context.Context, id string, conns Conns) (*ententev1.GetRepairResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	conn, err := conns.Conn(id)
	if err != nil {
		return nil, err
	}
	return ententev1.NewMemberServiceClient(conn).GetRepair(ctx, &ententev1.GetRepairRequest{})
}
