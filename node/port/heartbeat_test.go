package port_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore/membership"
)

// notes is a section that reports a member's id once, and answers queries with the reports at the leader.
type notes struct {
	id string

	mu      sync.Mutex
	sent    bool
	reports map[string]string
}

func (n *notes) Collect(full bool) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sent && !full {
		return nil
	}
	n.sent = true
	return []byte("report of " + n.id)
}

func (n *notes) Deliver(member string, report []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reports[member] = string(report)
}

func (n *notes) Answer(query []byte) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return []byte(n.reports[string(query)]), nil
}

func (n *notes) Reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reports = map[string]string{}
}

func TestReportsReachTheLeaderAndANewLeader(t *testing.T) {
	section := func(m *member) *member {
		m.sections = map[string]membership.Section{"notes": &notes{id: m.id, reports: map[string]string{}}}
		return m
	}
	a := section(newMember(t, "eu-1")).form()
	b := section(newMember(t, "eu-2")).joined(a)
	c := section(newMember(t, "eu-3")).joined(a)
	all := []*member{a, b, c}
	reported := func(at, about *member) func() error {
		return func() error {
			ctx, cancel := context.WithTimeout(t.Context(), waitLimit/4)
			defer cancel()
			answer, err := at.manager.Query(ctx, "notes", []byte(about.id))
			if err != nil || string(answer) != "report of "+about.id {
				return fmt.Errorf("%q %w", answer, err)
			}
			return nil
		}
	}
	for _, about := range all {
		b.eventually("got the report of "+about.id, reported(b, about))
	}

	var leader *member
	var rest []*member
	for _, m := range all {
		if m.store.IsLeader() {
			leader = m
		} else {
			rest = append(rest, m)
		}
	}
	require.NotNil(t, leader)
	leader.stop()
	for _, about := range rest {
		rest[0].eventually("got the report of "+about.id+" from the new leader", reported(rest[0], about))
	}
	rest[1].eventually("sees that the stopped one is not alive", func() error {
		ids, err := membership.Alive(rest[1].store.View())
		if err != nil || len(ids) != 2 {
			return fmt.Errorf("%v %w", ids, err)
		}
		return nil
	})

	// It restarts at another address, which the others learn.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	leader.address = l.Addr().String()
	section(leader).start()
	rest[0].eventually("follows it to its new address", func() error {
		row, found, err := membership.Members.Get(rest[0].store.View(), leader.id)
		if err != nil || !found || row.Value.GetAddress() != leader.address {
			return fmt.Errorf("%v %w", row.Value, err)
		}
		if address, _, _ := rest[0].directory.Locate(leader.id); address != leader.address {
			return errors.New("Raft has the old address")
		}
		return nil
	})
	revision := rest[0].write()
	leader.eventually("caught up at its new address", leader.reached(revision))
}

func TestWrongClockIsDetected(t *testing.T) {
	a := newMember(t, "eu-1").form()
	a.eventually("trusts its own clock while it is alone", func() error {
		if !a.manager.ClockSane() {
			return errors.New("not sane")
		}
		return nil
	})
	b := newMember(t, "eu-2").joined(a)
	c := newMember(t, "eu-3").joined(a)
	sane := func(m *member, want bool) func() error {
		return func() error {
			if m.manager.ClockSane() != want {
				return fmt.Errorf("sane: %t", !want)
			}
			return nil
		}
	}
	c.ahead.Store(int64(10 * time.Minute))
	c.eventually("saw that its clock is off", sane(c, false))
	assert.Positive(t, gaugeOf(t, c, "entente_membership_clock_distance_seconds"))
	for _, m := range []*member{a, b} {
		require.NoError(t, sane(m, true)())
	}
	c.ahead.Store(0)
	c.eventually("saw that its clock was set right", sane(c, true))
}

func gaugeOf(t *testing.T, m *member, metric string) float64 {
	t.Helper()
	families, err := m.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == metric {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", metric)
	return 0
}

var _ membership.Conns = (*port.Port)(nil)
