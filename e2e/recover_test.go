package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/recovery"
)

// recoverWith runs the command on the folder of a member, without a terminal.
func recoverWith(t *testing.T, p *process, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	args = append([]string{"cluster", "recover", "--config", filepath.Join(p.dir, "entente.hcl")}, args...)
	out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput()
	return string(out), err
}

// The disks of two of three members are lost. The third becomes a cluster that has everything that it had, and whose
// sequences no peer takes for a rollback. A lost member that comes back after all is refused, and joins anew.
func TestLostMajority(t *testing.T) {
	c := newCluster(t, "eu", 3, "")
	ctx, cancel := context.WithTimeout(t.Context(), 3*waitLimit)
	defer cancel()
	survivor, lost, back := c.members[0], c.members[1], c.members[2]
	require.NoError(t, register(ctx, survivor, c.domain, "web", 1))
	changeBundle(t, c, 0)
	before, err := survivor.sequence()
	require.NoError(t, err)
	eventually(t, "the member has recorded its contact", func() error { return recordedContact(survivor) })

	out, err := recoverWith(t, survivor, "--cluster", "eu")
	require.Error(t, err)
	require.Contains(t, out, "is in use by another entente server; stop that one")
	survivor.kill()
	lost.kill()
	out, err = recoverWith(t, survivor, "--cluster", "eu")
	require.Error(t, err)
	require.Contains(t, out, fmt.Sprintf("member eu-3 answers at %s: start this member, and the others that have "+
		"their data folders, and wait for a leader", back.api))
	back.kill()
	out, err = recoverWith(t, survivor)
	require.Error(t, err)
	require.Contains(t, out, "there is no terminal to ask for the name of the cluster: give --cluster NAME")
	out, err = recoverWith(t, survivor, "--cluster", "us")
	require.Error(t, err)
	require.Contains(t, out, `the cluster is "eu", not "us": nothing was changed`)
	out, err = recoverWith(t, survivor, "--cluster", "eu", "--sequence-floor", fmt.Sprint(before))
	require.Error(t, err)
	require.Contains(t, out, "sequences never fall")

	refusesClocks(t, survivor)

	since := time.Now()
	out, err = recoverWith(t, survivor, "--cluster", "eu")
	require.NoError(t, err, out)
	require.Regexp(t, `last index +\d+\n`, out)
	require.Regexp(t, `last leader contact +\d{4}-\d\d-\d\dT`, out)
	require.Contains(t, out, "Entries after that index may be lost that other members had acknowledged. Entries up to "+
		"it become committed, also those that no majority had.")
	require.Contains(t, out, "The identity keys of eu-2, eu-3 are struck out.")
	require.Contains(t, out, "Cluster eu is member eu-1 alone now. Start it: sequences continue from ")

	o := observe(t, survivor)
	c.start(survivor)
	require.Len(t, instances(t, survivor, "web"), 1)
	after, err := survivor.sequence()
	require.NoError(t, err)
	require.Greater(t, after, uint64(since.UnixMilli())+1<<20-1)
	eventually(t, "the endpoint was observed", func() error {
		if _, answers := o.seen(); answers == 0 {
			return fmt.Errorf("no answers")
		}
		return nil
	})
	o.end(t)
	require.Greater(t, o.lowest, uint64(since.UnixMilli()), "nothing older is ever served")
	list := survivor.command("cluster", "members")
	require.NotContains(t, list, "eu-2")
	require.NotContains(t, list, "eu-3")
	require.Contains(t, auditLog(t, survivor), `"recover cluster"`)
	require.NoError(t, register(ctx, survivor, c.domain, "more", 1))

	// The member with a disk after all: it belongs to a history that has ended.
	back.run()
	<-back.ended()
	const abandoned = "is abandoned, because the cluster was recovered without this member"
	require.Contains(t, back.logs(), "member stopped: the data folder "+abandoned+": member eu-1 at "+survivor.api+
		" refuses it: its data folder belongs to an abandoned history: at ")
	require.Contains(t, back.logs(), "to return, empty the data folder and join the cluster with a new token")
	require.Contains(t, refusedStart(t, back), "open the store: the state in "+
		filepath.Join(back.dir, "data", "raft")+" "+abandoned)

	// Both places are taken by new members.
	for _, p := range []*process{lost, back} {
		require.NoError(t, os.RemoveAll(filepath.Join(p.dir, "data")))
		token, err := survivor.socket().Cluster().CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{
			MemberId: p.id, AutoApprove: true,
		})
		require.NoError(t, err)
		p.configure(c, token.GetToken(), survivor.api)
		c.start(p)
	}
	require.Len(t, instances(t, back, "more"), 1)
	require.Equal(t, 3, strings.Count(survivor.command("cluster", "members"), "yes"))
}

// refusesClocks checks that a stopped member is not recovered by a clock that cannot be right.
func refusesClocks(t *testing.T, p *process) {
	t.Helper()
	cfg, err := config.Load(filepath.Join(p.dir, "entente.hcl"))
	require.NoError(t, err)
	stopped, err := recovery.Open(cfg)
	require.NoError(t, err)
	defer stopped.Close()
	for shift, text := range map[time.Duration]string{
		-time.Hour:                 ", is before the last sign of life of this member, ",
		-50 * 365 * 24 * time.Hour: ", is before the last sign of life of this member, ",
		367 * 24 * time.Hour:       ", is more than a year after the last sign of life of this member, ",
	} {
		_, err := stopped.Floor(0, time.Now().Add(shift))
		require.ErrorContains(t, err, text)
		require.ErrorContains(t, err, ": correct the clock, or give --sequence-floor with a number above every "+
			"sequence that a peer has seen")
	}
}

// The only member that is left was stopped before the cluster published its last bundles. A peer reports what it has to
// that member, which has no leader, and the recovery does not fall below that.
func TestRecoverAboveWhatPeersHaveSeen(t *testing.T) {
	eu, us := newCluster(t, "eu", 3, quick), newCluster(t, "us", 1, quick)
	peerUp(t, us, eu)
	everySigner(t, eu) // without a leader the last member signs for itself
	p := eu.members[2]
	eventually(t, "the member has recorded its contact", func() error { return recordedContact(p) })
	p.kill()
	for n := range 3 {
		changeBundle(t, eu, n)
	}
	published, err := eu.members[0].sequence()
	require.NoError(t, err)
	seen := func(least uint64) {
		t.Helper()
		eventually(t, "the peer has the bundle", func() error {
			ctx, cancel := context.WithTimeout(t.Context(), callLimit)
			defer cancel()
			request := &ententev1.GetBundleRequest{TrustDomain: eu.domain}
			b, err := us.members[0].socket().Bundles().GetBundle(ctx, request)
			if err == nil && b.GetSequence() < least {
				err = fmt.Errorf("it has %d, not %d", b.GetSequence(), least)
			}
			return err
		})
	}
	seen(published)
	for _, other := range eu.others(p) {
		other.kill()
	}
	us.members[0].kill() // so that it does not wait between attempts to reach the members that are gone
	p.run()
	eventually(t, "the member serves without a leader", p.ready)
	us.start(us.members[0])
	eventually(t, "the peer has reported what it has", func() error {
		_, err := os.Stat(filepath.Join(p.dir, "data", "seen"))
		return err
	})
	p.kill()

	out, err := recoverWith(t, p, "--cluster", "eu", "--sequence-floor", fmt.Sprint(published))
	require.Error(t, err)
	require.Contains(t, out, fmt.Sprintf("--sequence-floor %d is not above %d, which the peer us.example.org has: it "+
		"would refuse the bundles of this cluster as a rollback", published, published))
	out, err = recoverWith(t, p, "--cluster", "eu", "--sequence-floor", fmt.Sprint(published+1))
	require.NoError(t, err, out)
	require.Contains(t, out, fmt.Sprintf("  seen by peers        %d (by us.example.org)\n", published))
	eu.start(p)
	seen(published + 1)
}

func auditLog(t *testing.T, p *process) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "data", "audit.log"))
	require.NoError(t, err)
	return string(text)
}
