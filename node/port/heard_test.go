package port_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/membership"
)

// TestLastHeard: every member has a time at which it was last heard, the leader and one that is gone too, and a new
// leader keeps it.
func TestLastHeard(t *testing.T) {
	all := three(t)
	a, gone := all[0], all[2]
	listed := func() (map[string]*ententev1.Member, error) {
		list, err := a.manager.ClusterService().ListMembers(t.Context(), &ententev1.ListMembersRequest{})
		out := make(map[string]*ententev1.Member)
		for _, m := range list.GetMembers() {
			if m.GetLastContact() == nil {
				return nil, fmt.Errorf("%s was never heard", m.GetId())
			}
			out[m.GetId()] = m
		}
		return out, err
	}
	a.eventually("has heard of all", func() error {
		m, err := listed()
		alive := m["eu-1"].GetAlive() && m["eu-2"].GetAlive() && m["eu-3"].GetAlive()
		if err == nil && !alive {
			err = fmt.Errorf("not all are alive: %v", m)
		}
		return err
	})
	gone.stop()
	stopped := time.Now()
	a.eventually("shows the one that is gone, and when it was heard", func() error {
		m, err := listed()
		if err == nil && (m["eu-3"].GetAlive() || !m["eu-1"].GetAlive() || !m["eu-2"].GetAlive()) {
			err = fmt.Errorf("%v", m)
		}
		if err == nil {
			require.False(t, m["eu-3"].GetLastContact().AsTime().After(stopped))
		}
		return err
	})
	a.eventually("has recorded it", func() error {
		row, _, err := membership.Members.Get(a.store.View(), "eu-3")
		if err == nil && !row.Value.GetLastHeard().IsValid() {
			err = fmt.Errorf("%v", row.Value)
		}
		return err
	})
	before, err := listed()
	require.NoError(t, err)
	var to string
	for _, m := range before {
		if !m.GetLeader() && m.GetAlive() {
			to = m.GetId()
		}
	}
	a.eventually("has transferred leadership", func() error {
		if m, err := listed(); err != nil || m[to].GetLeader() {
			return err
		}
		_, err := a.manager.ClusterService().TransferLeadership(
			t.Context(), &ententev1.TransferLeadershipRequest{Id: to},
		)
		return err
	})
	a.eventually("shows the same under the new leader", func() error {
		m, err := listed()
		if err == nil && (!m[to].GetLeader() || m["eu-3"].GetAlive()) {
			err = fmt.Errorf("%v", m)
		}
		if err == nil {
			require.False(t, m["eu-3"].GetLastContact().AsTime().After(stopped))
		}
		return err
	})
}
