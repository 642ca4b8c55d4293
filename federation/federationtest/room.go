// Package federationtest plays what the tests of federation stand on: other clusters' authorities and bundle endpoints,
// the audit log, the leader, and the tables of other rooms.
package federationtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/trust"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

// WaitLimit bounds every wait. It is far longer than anything takes on a busy machine.
const WaitLimit = 30 * time.Second

// AuditLog is an audit log in memory.
type AuditLog struct {
	mu    sync.Mutex
	lines []audit.Event
	Full  bool
}

// Record appends an event, or fails if the log is full.
func (l *AuditLog) Record(e audit.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Full {
		return errors.New("no space left on device")
	}
	l.lines = append(l.lines, e)
	return nil
}

// Decisions is the lines as "action object result".
func (l *AuditLog) Decisions() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, e := range l.lines {
		out = append(out, e.Action+" "+e.Object+": "+e.Result)
	}
	return out
}

// Section is what a room reports with its member's heartbeats.
type Section interface {
	Collect(full bool) []byte
	Deliver(member string, report []byte)
	Answer(query []byte) ([]byte, error)
}

// Leader plays a membership of one member, which leads.
type Leader struct {
	Sections map[string]Section
}

// Query delivers the pending reports, and returns the answer of a section.
func (l *Leader) Query(_ context.Context, section string, query []byte) ([]byte, error) {
	l.Beat()
	if s := l.Sections[section]; s != nil {
		return s.Answer(query)
	}
	return nil, errors.New("no such section")
}

// Beat is a heartbeat of the member to itself.
func (l *Leader) Beat() {
	for _, s := range l.Sections {
		if report := s.Collect(false); report != nil {
			s.Deliver("member-1", report)
		}
	}
}

// HostedBundles plays authority's table.
var HostedBundles = raftstore.NewTable[*statev1.Bundle]("hosted_bundles")

// AliveMembers plays the rows that the leader writes of who is alive.
var AliveMembers = raftstore.NewTable[*statev1.AliveMember]("alive_in_test")

// Alive returns the members of [AliveMembers].
func Alive(r raftstore.Reader) (names []string, err error) {
	for row, err := range AliveMembers.All(r, "") {
		if err != nil {
			return nil, err
		}
		names = append(names, row.Key)
	}
	return names, nil
}

// MarkAlive sets the members that are alive.
func MarkAlive(t testing.TB, s *raftstore.Store, members ...string) {
	t.Helper()
	_, err := s.Update(context.Background(), func(tx *raftstore.Tx) error {
		rows, err := AliveMembers.List(tx, "")
		if err != nil {
			return err
		}
		for _, row := range rows {
			if !slices.Contains(members, row.Key) {
				if err := AliveMembers.Delete(tx, row.Key); err != nil {
					return err
				}
			}
		}
		for _, member := range members {
			if err := AliveMembers.Put(tx, member, &statev1.AliveMember{}); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
}

// The profiles as rows have them.
const (
	SpiffeProfile = int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE)
	WebProfile    = int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB)
)

// Names returns numbered trust domains below a suffix.
func Names(count int, suffix string) (out []string) {
	for i := range count {
		out = append(out, fmt.Sprintf("d%05d.%s", i, suffix))
	}
	return out
}

// Fill makes the ledger one whose disk is full, or is not.
func (l *AuditLog) Fill(full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Full = full
}

// Trust returns a trust index over [HostedBundles] and the foreign domains of a room.
func Trust(foreign trust.Foreign) *trust.Index {
	return trust.NewIndex(trust.Sources{
		Hosted: trust.Hosted{
			Hosts: func(r raftstore.Reader, td string) (bool, error) {
				_, found, err := HostedBundles.Get(r, td)
				return found, err
			},
			Bundles: HostedBundles,
		},
		Foreign: foreign,
	})
}
