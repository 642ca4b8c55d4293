package membership

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// Section is what one room reports to the leader's memory with each heartbeat; [memory.Section] implements it. Nothing
// of it goes through Raft. A new leader starts without it and receives everything again.
//
// Collect is called from one goroutine; the other methods may be called from several at once.
type Section interface {
	// Collect returns what changed since the last call, or everything if full: after a change of leader, or when the
	// last report may have been lost. It returns nil if there is nothing to send.
	Collect(full bool) []byte
	// Deliver takes over a member's report, on the leader, its own included.
	Deliver(member string, report []byte)
	// Answer answers a query from what the leader has received.
	Answer(query []byte) ([]byte, error)
	// Reset forgets all reports: this member begins to lead.
	Reset()
}

// maxSectionBytes bounds a room's report in one heartbeat, so that all rooms' together stay below gRPC's limit of 4 MiB
// a message.
const maxSectionBytes = 1 << 20

// sections are the registered sections by name.
type sections struct {
	log hclog.Logger
	// leads reports whether this member leads and has reset the sections.
	leads func() bool

	mu     sync.Mutex
	sealed bool
	byName map[string]Section
}

func (s *sections) register(name string, section Section) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed || s.byName[name] != nil {
		panic(fmt.Sprintf("membership: section %q registered twice, or after Run", name))
	}
	s.byName[name] = section
}

// seal ends the registration. The map is not changed any more.
func (s *sections) seal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = true
}

// collect returns the reports of all rooms.
func (s *sections) collect(full bool) map[string][]byte {
	reports := make(map[string][]byte)
	for name, section := range s.byName {
		report := section.Collect(full)
		switch {
		case report == nil:
		case len(report) > maxSectionBytes:
			s.log.Error("a report is too large for a heartbeat and was left out",
				"section", name, "bytes", len(report), "limit", maxSectionBytes)
		default:
			reports[name] = report
		}
	}
	return reports
}

func (s *sections) deliver(member string, reports map[string][]byte) {
	for name, report := range reports {
		if section := s.byName[name]; section != nil && len(report) <= maxSectionBytes {
			section.Deliver(member, report)
		}
	}
}

func (s *sections) reset() {
	for _, section := range s.byName {
		section.Reset()
	}
}

func (s *sections) answer(name string, query []byte) ([]byte, error) {
	section := s.byName[name]
	if section == nil {
		return nil, status.Errorf(codes.Unimplemented,
			"this member's version has no section %q; bring all members to the same version", name)
	}
	if !s.leads() {
		return nil, fmt.Errorf("section %s: %w", name, raftstore.ErrNotLeader)
	}
	return section.Answer(query)
}

// query sends a query to a section on the leader, which may be this member.
func (s *sections) query(ctx context.Context, l *leaderClient, name string, query []byte) ([]byte, error) {
	id, client, err := l.leader()
	if err != nil {
		return nil, fmt.Errorf("query section %s on the leader: %w", name, err)
	}
	if id == l.self {
		return s.answer(name, query)
	}
	answer, err := client.QueryReports(ctx, &ententev1.QueryReportsRequest{Section: name, Query: query})
	if err != nil {
		return nil, err
	}
	return answer.GetAnswer(), nil
}
