package federation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

// patience bounds every wait: far longer than anything takes on a busy machine.
const patience = 30 * time.Second

// ledger is an audit log in memory.
type ledger struct {
	mu    sync.Mutex
	lines []access.Event
	full  bool
}

func (l *ledger) Record(e access.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full {
		return errors.New("no space left on device")
	}
	l.lines = append(l.lines, e)
	return nil
}

// said is the lines as "action object result".
func (l *ledger) said() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, e := range l.lines {
		out = append(out, e.Action+" "+e.Object+": "+e.Result)
	}
	return out
}

// section is what a room reports with its member's heartbeats.
type section interface {
	Collect(full bool) []byte
	Deliver(member string, report []byte)
	Answer(query []byte) ([]byte, error)
}

// directLeader plays a membership of one member, which leads.
type directLeader struct {
	sections map[string]section
}

func (l *directLeader) Query(_ context.Context, section string, query []byte) ([]byte, error) {
	l.beat()
	if s := l.sections[section]; s != nil {
		return s.Answer(query)
	}
	return nil, errors.New("no such section")
}

// beat is a heartbeat of the member to itself.
func (l *directLeader) beat() {
	for _, s := range l.sections {
		if report := s.Collect(false); report != nil {
			s.Deliver("member-1", report)
		}
	}
}

// hostedBundles plays authority's table.
var hostedBundles = raftstore.NewTable[*statev1.Bundle]("hosted_bundles")

func isHosted(r raftstore.Reader, td string) (bool, error) {
	_, found, err := hostedBundles.Get(r, td)
	return found, err
}

// aliveMembers plays the rows that the leader writes of who is alive.
var aliveMembers = raftstore.NewTable[*statev1.AliveMember]("alive_in_test")

func alive(r raftstore.Reader) (names []string, err error) {
	for row, err := range aliveMembers.All(r, "") {
		if err != nil {
			return nil, err
		}
		names = append(names, row.Key)
	}
	return names, nil
}

// markAlive says which members are alive from now on.
func markAlive(t testing.TB, s *raftstore.Store, members ...string) {
	t.Helper()
	_, err := s.Update(context.Background(), func(tx *raftstore.Tx) error {
		rows, err := aliveMembers.List(tx, "")
		if err != nil {
			return err
		}
		for _, row := range rows {
			if !slices.Contains(members, row.Key) {
				if err := aliveMembers.Delete(tx, row.Key); err != nil {
					return err
				}
			}
		}
		for _, member := range members {
			if err := aliveMembers.Put(tx, member, &statev1.AliveMember{}); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
}

// The profiles as rows have them.
const (
	spiffeProfile = int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE)
	webProfile    = int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB)
)

func names(count int, suffix string) (out []string) {
	for i := range count {
		out = append(out, fmt.Sprintf("d%05d.%s", i, suffix))
	}
	return out
}

// fill makes the ledger one whose disk is full, or is not.
func (l *ledger) fill(full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full = full
}
