package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// refusedStart runs a member and waits until it has given up.
func refusedStart(t *testing.T, p *process, flags ...string) string {
	t.Helper()
	p.run(flags...)
	eventually(t, p.id+" has given up", func() error {
		if p.isRunning() {
			return fmt.Errorf("it still runs")
		}
		return nil
	})
	return p.logs()
}

func TestAnEmptyFolderNeedsBootstrapOrJoin(t *testing.T) {
	c := &cluster{t: t, name: "eu", domain: "eu.example.org"}
	text := refusedStart(t, c.add("", ""))
	require.Contains(
		t, text, "start with --bootstrap to form a new cluster, or add a join block with addresses and a token",
	)
}

func TestJoinTokens(t *testing.T) {
	c := newCluster(t, "eu", 2, "")
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	first := c.members[0]

	used, err := os.ReadFile(filepath.Join(c.members[1].dir, "token"))
	require.NoError(t, err)
	require.Contains(t, refusedStart(t, c.add(string(used), first.api)), "used", "a token admits one member")

	brief, err := first.socket().
		Cluster().
		CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{MemberId: c.nextID(), Ttl: durationpb.New(1e9)})
	require.NoError(t, err)
	<-timerUntil(t, brief.GetExpireTime().AsTime())
	require.Contains(t, refusedStart(t, c.add(brief.GetToken(), first.api)), "expired")

	// A token of another cluster names other identity keys: nothing is sent here.
	other := newCluster(t, "us", 1, "")
	foreign, err := other.members[0].socket().Cluster().CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{
		MemberId: "us-2",
	})
	require.NoError(t, err)
	require.Contains(
		t, refusedStart(t, c.add(foreign.GetToken(), first.api)),
		`the join token is for cluster "us", but cluster.name is "eu"`,
	)
}

func TestMemberRejoinsAfterDiskLoss(t *testing.T) {
	c := newCluster(t, "eu", 3, "")
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	lost := c.members[2]
	require.NoError(t, register(ctx, lost, c.domain, "web", 1))
	lost.kill()
	require.NoError(t, os.RemoveAll(filepath.Join(lost.dir, "data")))

	admin := c.members[0].socket().Cluster()
	_, err := admin.RemoveMember(ctx, &ententev1.RemoveMemberRequest{Id: lost.id})
	require.NoError(t, err)
	token, err := admin.CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{MemberId: lost.id, AutoApprove: true})
	require.NoError(t, err)
	lost.configure(c, token.GetToken(), c.members[1].api)
	c.start(lost)
	require.Len(t, instances(t, lost, "web"), 1)
	answer, err := admin.ListMembers(ctx, &ententev1.ListMembersRequest{})
	require.NoError(t, err)
	require.Len(t, answer.GetMembers(), 3)
}

func TestTheKeysOfACompromisedMemberAreTrustedNoMore(t *testing.T) {
	c := newCluster(t, "eu", 3, "")
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	eventually(t, "every member has published its authorities", func() error {
		if b := homeBundle(t, c); b.GetX509Authorities() < 3 || b.GetJwtAuthorities() < 3 {
			return fmt.Errorf("%d X.509 and %d JWT authorities", b.GetX509Authorities(), b.GetJwtAuthorities())
		}
		return nil
	})
	first := c.members[0] // the one whose authority has signed everything so far
	svid := issue(t, c.members[1], "spiffe://eu.example.org/web")
	_, _, err := x509svid.Verify(svid.svid.Certificates, svid.bundle)
	require.NoError(t, err)
	made := invite(t, c.members[1], c.domain, "us.example.org")
	eventually(t, "the first member is removed", func() error {
		_, err := c.members[1].socket().
			Cluster().
			RemoveMember(ctx, &ententev1.RemoveMemberRequest{Id: first.id, Compromised: true})
		return err
	})
	var now workload
	eventually(t, "another member signs", func() error { // its authority becomes active at once, and that is a write
		now, err = tryIssue(t, c.members[1], "spiffe://eu.example.org/web")
		return err
	})
	_, _, err = x509svid.Verify(svid.svid.Certificates, now.bundle)
	require.ErrorContains(t, err, "certificate signed by unknown authority", "of the compromised member")
	_, _, err = x509svid.Verify(now.svid.Certificates, now.bundle)
	require.NoError(t, err)
	list, err := federationOf(c.members[1]).ListInvitations(ctx, &ententev1.ListInvitationsRequest{})
	require.NoError(t, err)
	require.Equal(t, made.GetInvitation().GetId(), list.GetInvitations()[0].GetId())
	require.Equal(
		t, ententev1.InvitationState_INVITATION_STATE_REVOKED, list.GetInvitations()[0].GetState(),
		"its key could answer for an open one",
	)
}

func TestARemovedMemberIsShutOut(t *testing.T) {
	c := newCluster(t, "eu", 3, "")
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	removed := c.others(c.leader())[0]
	rest := c.others(removed)
	_, err := rest[0].socket().Cluster().RemoveMember(ctx, &ententev1.RemoveMemberRequest{Id: removed.id})
	require.NoError(t, err)
	endsAsRemoved(t, removed)
	require.NoError(t, register(ctx, rest[1], c.domain, "web", 2))

	// A supervisor that starts it again changes nothing.
	removed.run()
	endsAsRemoved(t, removed)
}

// A member that is down when it is removed stops once both others have answered so. One that is frozen can have the
// change in the buffers of its connections.
func TestAnAbsentMemberLearnsItsRemoval(t *testing.T) {
	for name, absence := range map[string]struct {
		begin, end func(*process)
		proof      string
	}{
		"down": {
			(*process).kill, func(p *process) { p.run() }, "answer so, a majority of the members with a vote",
		},
		"frozen": {
			func(p *process) { p.send(syscall.SIGSTOP) }, func(p *process) { p.send(syscall.SIGCONT) }, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "eu", 3, "")
			ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
			defer cancel()
			removed := c.others(c.leader())[0]
			rest := c.others(removed)
			absence.begin(removed)
			_, err := rest[0].socket().Cluster().RemoveMember(ctx, &ententev1.RemoveMemberRequest{Id: removed.id})
			require.NoError(t, err)
			absence.end(removed)
			endsAsRemoved(t, removed)
			require.Contains(t, removed.logs(), absence.proof)
		})
	}
}

// endsAsRemoved waits until a member has ended because it was removed.
func endsAsRemoved(t *testing.T, p *process) {
	t.Helper()
	<-p.ended()
	require.Equal(t, 9, p.cmd.ProcessState.ExitCode(), p.logs())
	require.Contains(t, p.logs(), "this member was removed from the cluster and stops")
	require.Less(t, strings.Count(p.logs(), "bad certificate"), 10, p.logs())
}
