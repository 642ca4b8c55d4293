package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/shorttest"
)

// alarming are the lines of a log that a person has to look at.
var alarming = regexp.MustCompile(`(?m)^\S+ +\[(WARN|ERROR)\] .*$`)

// disturbed are the lines of a machine that is so busy that a leader was lost: such a run is not a usual one.
var disturbed = regexp.MustCompile(`timeout reached|failed to contact|failed to heartbeat`)

// TestUsualLogsHaveNoWarning: nobody gets used to warnings. The start of a cluster, a join with and without an
// approval, and a change of the leader log none.
func TestUsualLogsHaveNoWarning(t *testing.T) {
	shorttest.Skip(t, "runs members as processes")
	const attempts = 3
	for range attempts {
		lines := usualRun(t)
		if disturbed.MatchString(lines) {
			t.Logf("a leader was lost; once more:\n%s", lines)
			continue
		}
		require.Empty(t, lines)
		return
	}
	t.Fatalf("a leader was lost in each of %d runs", attempts)
}

// usualRun forms a cluster of three members, and makes another member the leader. It returns the warnings and errors
// that they log.
func usualRun(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*waitLimit)
	defer cancel()
	c := &cluster{t: t, name: "eu", domain: "eu.example.org", timeout: "5s"}
	c.form(2)
	admin := c.members[0].socket().Cluster()
	token, err := admin.CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{MemberId: c.nextID()})
	require.NoError(t, err)
	third := c.add(token.GetToken(), c.members[1].api)
	third.run()
	c.members[0].attempt("", "cluster", "approve", third.id)
	third.waitReady()
	leader := c.leader()
	to := c.others(leader)[0]
	_, err = leader.socket().Cluster().TransferLeadership(ctx, &ententev1.TransferLeadershipRequest{Id: to.id})
	require.NoError(t, err)
	var lines []string
	for _, p := range c.members {
		eventually(t, p.id+" knows the leader", func() error {
			if id, err := p.leaderID(); err != nil || id != to.id {
				return errors.Join(err, errors.New("the leader is "+id))
			}
			return nil
		})
		p.waitReady()
		lines = append(lines, alarming.FindAllString(p.logs(), -1)...)
	}
	for _, p := range c.members {
		p.kill()
	}
	return strings.Join(lines, "\n")
}

// TestDevLogsNoWarning: the first thing that a newcomer runs.
func TestDevLogsNoWarning(t *testing.T) {
	shorttest.Skip(t, "runs members as processes")
	var mu sync.Mutex
	var log, block strings.Builder
	dev := exec.Command(binary, "server", "--dev")
	dev.Stderr, dev.Stdout = &lockedWriter{mu: &mu, w: &log}, &lockedWriter{mu: &mu, w: &block}
	dev.Env = append(os.Environ(), "ENTENTE_END_WITH_STDIN=1", "TMPDIR="+t.TempDir())
	_, err := dev.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, dev.Start())
	done := make(chan struct{})
	go func() { _ = dev.Wait(); close(done) }()
	t.Cleanup(func() { _ = dev.Process.Kill(); <-done })
	eventually(t, "the member prints what to do next", func() error {
		mu.Lock()
		defer mu.Unlock()
		if !strings.Contains(block.String(), "ENTENTE_SOCKET") {
			return errors.New("it has not yet:\n" + log.String())
		}
		return nil
	})
	require.NoError(t, dev.Process.Signal(syscall.SIGTERM))
	<-done
	require.Empty(t, strings.Join(alarming.FindAllString(log.String(), -1), "\n"))
}
