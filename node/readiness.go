package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ententehq/entente/node/operations"
)

// leaderSilence is how long a member counts as ready after its last contact with a leader.
const leaderSilence = 15 * time.Second

// readiness returns the conditions under which /ready answers 200.
func readiness(m *member) []operations.Check {
	return []operations.Check{
		{Name: "leader", Test: func() error {
			if last := m.members.LastContact(); time.Since(last) > leaderSilence {
				return fmt.Errorf("no contact with a leader for %s: a majority of the members must be up and reach "+
					"each other",
					leaderSilence)
			}
			return nil
		}},
		{Name: "vote", Test: func() error {
			for _, server := range m.store.Servers().List() {
				if server.MemberID == m.cfg.Member.ID && server.Voter {
					return nil
				}
			}
			return errors.New("this member has no vote yet; the leader gives it one when it has caught up")
		}},
		{Name: "svid", Test: func() error { _, err := m.authority.MemberSVID(); return err }},
		{Name: "bundle", Test: m.publisher.Ready},
	}
}

// followSignals reopens the audit log at SIGHUP, after it was rotated.
func followSignals(m *member) func(context.Context) error {
	return func(ctx context.Context) error {
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hup:
				if err := m.audit.Reopen(); err != nil {
					m.log.Error("cannot reopen the audit log; the member continues with the file it has", "error", err)
					continue
				}
				m.log.Info("reopened the audit log")
			}
		}
	}
}
