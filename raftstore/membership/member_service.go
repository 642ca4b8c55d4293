package membership

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// MemberService is what fellow members ask of this one. It is served under entente-member/1 alone.
func (m *Manager) MemberService() ententev1.MemberServiceServer { return memberService{m: m} }

type memberService struct {
	ententev1.UnimplementedMemberServiceServer
	m *Manager
}

// fellow returns who is calling.
func (s memberService) fellow(ctx context.Context) (string, error) {
	id, ok := s.m.Caller(ctx)
	if !ok {
		return "", status.Error(codes.PermissionDenied, "only members of the cluster call this, on their identity keys")
	}
	return id, nil
}

func (s memberService) Heartbeat(ctx context.Context, req *ententev1.HeartbeatRequest) (*ententev1.HeartbeatResponse, error) {
	m := s.m
	id, err := s.fellow(ctx)
	if err != nil {
		return nil, err
	}
	if id != req.GetId() {
		return nil, status.Errorf(codes.InvalidArgument, "the heartbeat says that it is from member %.80q, but member %s sent it", req.GetId(), id)
	}
	l := m.currentLead()
	if l == nil || l.term != req.GetTerm() {
		return nil, raftstore.StatusError(fmt.Errorf("heartbeat for term %d: %w", req.GetTerm(), raftstore.ErrNotLeader))
	}
	if err := req.GetClock().CheckValid(); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the heartbeat's clock is malformed: %v", err)
	}
	now := m.Now()
	offset := req.GetClock().AsTime().Sub(now.Round(0))
	l.note(id, beat{at: time.Now(), read: readClocks(), offset: offset, applied: raftstore.Revision(req.GetAppliedRevision())})
	m.deliver(id, req.GetSections())
	answer := &ententev1.HeartbeatResponse{Clock: timestamppb.New(now), Term: l.term}
	if distance, known := m.distance(l, m.Store.Servers().List(), id); known {
		answer.ClockDistance = durationpb.New(distance)
	}
	return answer, nil
}

func (s memberService) GetMembership(ctx context.Context, _ *ententev1.GetMembershipRequest) (*ententev1.GetMembershipResponse, error) {
	if _, err := s.fellow(ctx); err != nil {
		return nil, err
	}
	members, index := s.m.Directory.identities()
	return &ententev1.GetMembershipResponse{Revision: uint64(index), Members: members}, nil
}

func (s memberService) Enlist(ctx context.Context, req *ententev1.EnlistRequest) (*ententev1.EnlistResponse, error) {
	if _, err := s.fellow(ctx); err != nil {
		return nil, err
	}
	answer, err := s.m.enlist(ctx, req.GetMember())
	return answer, raftstore.StatusError(err)
}

func (s memberService) Strike(ctx context.Context, req *ententev1.StrikeRequest) (*ententev1.StrikeResponse, error) {
	if _, err := s.fellow(ctx); err != nil {
		return nil, err
	}
	revision, err := s.m.strike(ctx, req.GetId(), req.GetCompromised())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.StrikeResponse{Revision: uint64(revision)}, nil
}

func (s memberService) Transfer(ctx context.Context, req *ententev1.TransferRequest) (*ententev1.TransferResponse, error) {
	if _, err := s.fellow(ctx); err != nil {
		return nil, err
	}
	leader, err := s.m.transfer(ctx, req.GetId())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.TransferResponse{LeaderId: leader}, nil
}

func (s memberService) Report(ctx context.Context, req *ententev1.ReportRequest) (*ententev1.ReportResponse, error) {
	if _, err := s.fellow(ctx); err != nil {
		return nil, err
	}
	answer, err := s.m.answer(req.GetSection(), req.GetQuery())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.ReportResponse{Answer: answer}, nil
}

// enlist brings a member whose row is stored into the Raft configuration, or takes over its new address.
// The leader does it, after it has found the member's identity key at the address.
func (m *Manager) enlist(ctx context.Context, member *ententev1.MemberIdentity) (*ententev1.EnlistResponse, error) {
	fellows, err := fellowsOf([]*ententev1.MemberIdentity{member})
	if err == nil {
		err = CheckAddress(member.GetAddress())
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	joiner := fellows[0]
	if m.currentLead() == nil {
		return nil, raftstore.ErrNotLeader
	}
	server, done, err := m.enlistable(ctx, joiner)
	if err != nil {
		return nil, err
	}
	if done {
		return m.enlisted(), nil
	}
	// Nothing is held meanwhile: an address at which nobody answers must not keep this member from being removed.
	if err := m.Prober.ProbeIdentity(ctx, joiner.Address, joiner.Identity); err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "the leader %s did not find member %s at its address %s: %v; check member.advertise and the network between the two",
			m.Self.ID, joiner.ID, joiner.Address, err)
	}
	m.changing.Lock()
	defer m.changing.Unlock()
	if server, done, err = m.enlistable(ctx, joiner); err != nil {
		return nil, err
	}
	if done {
		return m.enlisted(), nil
	}
	if server.Stored != joiner.Address {
		if err := m.move(ctx, joiner); err != nil {
			return nil, err
		}
	}
	if server.Voter {
		err = m.Store.Servers().AddVoter(ctx, server.Server)
	} else {
		err = m.Store.Servers().AddNonvoter(ctx, server.Server)
	}
	if err != nil {
		return nil, err
	}
	m.Logger.Info("the member is in the Raft configuration", "member", joiner.ID, "address", joiner.Address, "identity", short(joiner.Identity), "voter", server.Voter)
	return m.enlisted(), nil
}

// enlistee is a member that is to be in the Raft configuration, with the address of its row.
type enlistee struct {
	raftstore.Server
	Stored string
}

// enlistable returns what is to be put into the Raft configuration for a member whose row is stored; done says that it
// stands there already.
func (m *Manager) enlistable(ctx context.Context, joiner Fellow) (e enlistee, done bool, err error) {
	v, err := m.Store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return e, false, err
	}
	row, found, err := Members.Get(v, joiner.ID)
	if err != nil {
		return e, false, err
	}
	if !found || string(row.Value.GetIdentity()) != string(joiner.Identity[:]) {
		return e, false, status.Errorf(codes.FailedPrecondition, "no token was redeemed for member %s with identity key %s; join it with a token", joiner.ID, short(joiner.Identity))
	}
	e = enlistee{raftstore.Server{MemberID: joiner.ID, Identity: joiner.Identity, Address: joiner.Address}, row.Value.GetAddress()}
	for _, known := range m.Store.Servers().List() {
		if known.MemberID == joiner.ID && known.Identity == joiner.Identity {
			e.Voter = known.Voter
			done = done || known.Address == joiner.Address
		}
	}
	return e, done, nil
}

func (m *Manager) enlisted() *ententev1.EnlistResponse {
	members, index := m.Directory.identities()
	return &ententev1.EnlistResponse{Revision: uint64(index), Members: members}
}

// move stores a member's new address.
func (m *Manager) move(ctx context.Context, f Fellow) error {
	_, err := m.Store.Update(ctx, func(tx *raftstore.Tx) error {
		row, found, err := Members.Get(tx, f.ID)
		if err != nil || !found {
			return err
		}
		row.Value.Address = f.Address
		return Members.Put(tx, f.ID, row.Value)
	})
	return err
}

// strike removes a member: from Raft first, so that it has no vote and no connection any more, and then
// from the tables. If the leader stops in between, asking again finishes it.
func (m *Manager) strike(ctx context.Context, id string, compromised bool) (raftstore.Revision, error) {
	if err := CheckID(id); err != nil {
		return 0, status.Error(codes.InvalidArgument, err.Error())
	}
	l := m.currentLead()
	if l == nil {
		return 0, raftstore.ErrNotLeader
	}
	m.changing.Lock()
	defer m.changing.Unlock()
	v, err := m.Store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return 0, err
	}
	_, stored, err := Members.Get(v, id)
	if err != nil {
		return 0, err
	}
	servers := m.Store.Servers().List()
	inRaft := false
	for _, s := range servers {
		inRaft = inRaft || s.MemberID == id
	}
	if !stored && !inRaft {
		return 0, status.Errorf(codes.NotFound, "the cluster has no member %s; see `entente cluster members`", id)
	}
	if inRaft {
		hears := m.hears(l)
		if err := removable(servers, func(other string) bool { return hears(other) || !m.settled(l) }, id); err != nil {
			return 0, err
		}
		if id == m.Self.ID {
			if err := m.Store.Servers().TransferLead(ctx, ""); err != nil {
				return 0, err
			}
			return 0, fmt.Errorf("member %s led and has handed the lead over: %w", id, raftstore.ErrNotLeader)
		}
		if err := m.Store.Servers().Remove(ctx, id); err != nil && !errors.Is(err, raftstore.ErrNotMember) {
			return 0, err
		}
	}
	revision, err := m.Store.Update(ctx, func(tx *raftstore.Tx) error {
		for _, fn := range m.OnRemove {
			if err := fn(tx, Removal{MemberID: id, Compromised: compromised}); err != nil {
				return fmt.Errorf("remove member %s: %w", id, err)
			}
		}
		return errors.Join(Members.Delete(tx, id), alive.Delete(tx, id))
	})
	if err == nil {
		m.Logger.Info("the member was removed", "member", id, "compromised", compromised, "revision", revision)
	}
	return revision, err
}

// transfer hands the lead to another member, or says who leads when that is the one asked for.
func (m *Manager) transfer(ctx context.Context, id string) (string, error) {
	if m.currentLead() == nil {
		return "", raftstore.ErrNotLeader
	}
	if id == m.Self.ID {
		return id, nil
	}
	voters := 0
	known := id == ""
	for _, s := range m.Store.Servers().List() {
		if s.Voter {
			voters++
			known = known || s.MemberID == id
		}
	}
	switch {
	case !known:
		return "", status.Errorf(codes.NotFound, "the cluster has no member %.80q with a vote; see `entente cluster members`", id)
	case voters < 2:
		return "", status.Errorf(codes.FailedPrecondition, "member %s is the only one with a vote; there is nobody to hand the lead to", m.Self.ID)
	}
	if err := m.Store.Servers().TransferLead(ctx, id); err != nil {
		return "", err
	}
	if id != "" {
		return id, nil
	}
	poll := time.NewTicker(leaderRetry / 10)
	defer poll.Stop()
	for {
		if leader, ok := m.Store.Leader(); ok && leader.MemberID != m.Self.ID {
			return leader.MemberID, nil
		}
		select {
		case <-ctx.Done():
			return "", raftstore.ErrNoLeader
		case <-poll.C:
		}
	}
}

// announceOnce brings this member's row in line with its configuration. The row of the first member of a
// cluster is made here; those of others when they join. A new address goes through the leader, which checks
// it, since it can be reached from here before this member can be reached from there.
func (m *Manager) announceOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	present := false
	for _, s := range m.Store.Servers().List() {
		if s.MemberID != m.Self.ID || s.Identity != m.Self.Identity {
			continue
		}
		present = true
		if s.Address != m.Self.Address {
			if err := m.announceAddress(ctx); err != nil {
				return fmt.Errorf("announce the new address %s: %w", m.Self.Address, err)
			}
		}
	}
	if !present {
		return nil // not in the cluster yet, or no longer
	}
	row, found, err := Members.Get(m.Store.View(), m.Self.ID)
	if err != nil || found && proto.Equal(row.Value, m.own(row.Value)) {
		return err
	}
	_, err = m.Store.Update(ctx, func(tx *raftstore.Tx) error {
		row, found, err := Members.Get(tx, m.Self.ID)
		if err != nil {
			return err
		}
		if !found {
			others, err := Members.List(tx, "")
			if err != nil || len(others) > 0 {
				return err // struck out: the row must not come back
			}
			row.Value = &statev1.Member{JoinTime: timestamppb.New(m.Now())}
		}
		return Members.Put(tx, m.Self.ID, m.own(row.Value))
	})
	return err
}

// announceAddress has the leader take over this member's new address. While the others look for it at the old
// one, it does not hear from the leader and cannot know who leads; so it asks everybody.
func (m *Manager) announceAddress(ctx context.Context) error {
	member := &ententev1.MemberIdentity{Id: m.Self.ID, Address: m.Self.Address, Identity: m.Self.Identity[:]}
	_, err := m.enlist(ctx, member)
	if err == nil {
		return nil
	}
	failures := []error{err}
	fellows, _ := m.Directory.Fellows()
	for _, f := range fellows {
		if f.ID == m.Self.ID {
			continue
		}
		conn, err := m.Conns.Conn(f.ID)
		if err == nil {
			_, err = ententev1.NewMemberServiceClient(conn).Enlist(ctx, &ententev1.EnlistRequest{Member: member})
		}
		if err == nil {
			return nil
		}
		failures = append(failures, fmt.Errorf("member %s: %w", f.ID, err))
	}
	return errors.Join(failures...)
}

// own returns a row as this member's must be, with what is not this process's to say as it was.
func (m *Manager) own(was *statev1.Member) *statev1.Member {
	row := proto.CloneOf(was)
	row.Id, row.Region, row.Zone, row.Address = m.Self.ID, m.Self.Region, m.Self.Zone, m.Self.Address
	row.Identity, row.Version, row.CommandVersion = m.Self.Identity[:], m.Self.Version, raftstore.CommandVersion
	return row
}
