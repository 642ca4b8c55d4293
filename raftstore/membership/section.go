package membership

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// Section is what one room reports to the leader's memory with each heartbeat. Nothing of it goes through
// Raft, and a new leader starts without it and is told everything again.
//
// Collect is called from one goroutine; the other methods may be called from several at once.
type Section interface {
	// Collect returns what changed since the last call, or everything if full: after a change of leader, or
	// when what was collected last may not have arrived. Nil: there is nothing to tell.
	Collect(full bool) []byte
	// Deliver takes a member's report in, on the leader, its own included.
	Deliver(member string, report []byte)
	// Answer answers a query from what the leader was told.
	Answer(query []byte) ([]byte, error)
	// Reset forgets all reports: this member begins to lead.
	Reset()
}

// maxSectionBytes bounds a room's report in one heartbeat, so that all rooms' together stay below gRPC's
// limit of 4 MiB a message.
const maxSectionBytes = 1 << 20

// Register adds a room's section. It is called before [Manager.Run], and panics afterwards or on a duplicate:
// both are mistakes in the program.
func (m *Manager) Register(name string, s Section) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running || m.sections[name] != nil {
		panic(fmt.Sprintf("membership: section %q registered twice, or after Run", name))
	}
	m.sections[name] = s
}

// Query asks a section on the leader, which may be this member.
func (m *Manager) Query(ctx context.Context, name string, query []byte) ([]byte, error) {
	leader, ok := m.Store.Leader()
	if !ok {
		return nil, fmt.Errorf("ask the leader's section %s: %w", name, raftstore.ErrNoLeader)
	}
	if leader.MemberID == m.Self.ID {
		return m.answer(name, query)
	}
	conn, err := m.Conns.Conn(leader.MemberID)
	if err != nil {
		return nil, fmt.Errorf("ask the leader's section %s: %w", name, err)
	}
	answer, err := ententev1.NewMemberServiceClient(conn).Report(ctx, &ententev1.ReportRequest{Section: name, Query: query})
	if err != nil {
		return nil, err
	}
	return answer.GetAnswer(), nil
}

func (m *Manager) answer(name string, query []byte) ([]byte, error) {
	s := m.sections[name]
	if s == nil {
		return nil, status.Errorf(codes.Unimplemented, "this member's version has no section %q; bring all members to the same version", name)
	}
	if m.currentLead() == nil {
		return nil, fmt.Errorf("section %s: %w", name, raftstore.ErrNotLeader)
	}
	return s.Answer(query)
}

// ownSection tells when the leader last heard from each member.
const ownSection = "membership"

// heard is the manager as its own section: its reports are the heartbeats themselves.
type heard Manager

func (*heard) Collect(bool) []byte    { return nil }
func (*heard) Deliver(string, []byte) {}
func (*heard) Reset()                 {}

// Answer returns the members with the times at which the leader last heard from them.
func (h *heard) Answer([]byte) ([]byte, error) {
	var answer ententev1.ListMembersResponse
	l := (*Manager)(h).currentLead()
	if l == nil {
		return nil, raftstore.ErrNotLeader
	}
	for id, b := range l.all() {
		answer.Members = append(answer.Members, &ententev1.Member{Id: id, LastHeard: timestamppb.New(b.at)})
	}
	return proto.Marshal(&answer)
}
