package port_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

func durationOf(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// The members of these tests have neither SVIDs nor bundles. They depend on identity keys only.

func TestThreeMembersFormClusterAndRestart(t *testing.T) {
	a := newMember(t, "eu-1").form()
	b := newMember(t, "eu-2").joined(a)
	c := newMember(t, "eu-3").joined(b)
	all := []*member{a, b, c}

	for _, m := range all {
		m.eventually("sees three alive members", func() error {
			ids, err := membership.Alive(m.store.View())
			if err != nil || len(ids) != 3 {
				return fmt.Errorf("%v %w", ids, err)
			}
			return nil
		})
		since := time.Now()
		m.eventually("has a sane clock and hears from the leader", func() error {
			if !m.manager.ClockSane() || !m.manager.LastContact().After(since) {
				return fmt.Errorf("sane: %t, last contact at %s", m.manager.ClockSane(), m.manager.LastContact())
			}
			return nil
		})
	}
	list, err := b.manager.ClusterService().ListMembers(t.Context(), &ententev1.ListMembersRequest{
		Read: &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_STALE}, // it needs no leader
	})
	require.NoError(t, err)
	require.Len(t, list.GetMembers(), 3)
	assert.Equal(t, a.store.ClusterID(), list.GetClusterId())

	revision := c.write()
	for _, m := range all {
		m.stop()
	}
	for _, m := range all {
		m.start()
	}
	for _, m := range all {
		m.eventually("reached what was acknowledged before", m.reached(revision))
	}
	a.write()

	// Without an SVID of its own, the member refuses clients.
	conn, err := clientTLS(a.address, "h2", nil)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	requireClosed(t, err)
	requireRefused(t, a, "h2", port.ReasonNoOwnSVID)
}

func TestTokenAdmitsOneMember(t *testing.T) {
	a := newMember(t, "eu-1").form()
	token := a.token("eu-2", time.Minute)
	b := newMember(t, "eu-2").start()
	require.NoError(t, b.enter(token, a.address))
	require.NoError(t, b.enter(token, a.address), "the same key may join again with the same result")

	c := newMember(t, "eu-3").start()
	err := c.enter(token, a.address)
	require.ErrorIs(t, err, join.ErrRefused)
	assert.ErrorContains(t, err, "the join token was used by member eu-2")
	assert.ErrorContains(t, err, "make a new one with `entente cluster join-token eu-3`")

	err = c.enter(a.token("eu-4", time.Minute), a.address)
	require.ErrorIs(t, err, join.ErrRefused)
	assert.ErrorContains(t, err, `the join token is for member "eu-4", and this member is eu-3; correct member.id, or `+
		"make a new one with `entente cluster join-token eu-3`")
	replaced := a.token("eu-3", time.Minute)
	a.token("eu-3", time.Minute)
	assert.ErrorContains(t, c.enter(replaced, a.address), "this cluster has no such join token")

	unknown := join.NewToken(clusterName, time.Now().Add(time.Minute), []memberid.Digest{a.identity.Digest})
	require.ErrorContains(t, c.enter(unknown, a.address), "no such join token")

	late := a.token("eu-3", time.Second)
	a.ahead.Store(int64(time.Hour))
	require.ErrorContains(t, c.enter(late, a.address), "the join token expired at")
	a.ahead.Store(0)

	_, err = a.createToken(&ententev1.CreateJoinTokenRequest{MemberId: "eu-2"})
	require.ErrorContains(t, err, "the cluster has a member eu-2: if it lost its disk, remove it with "+
		"`entente cluster remove eu-2` first, because a token made before a removal is void")
	_, err = a.createToken(&ententev1.CreateJoinTokenRequest{})
	require.ErrorContains(t, err, "member_id is missing: a join token is for one member")
	_, err = a.createToken(&ententev1.CreateJoinTokenRequest{MemberId: "../eu-2"})
	require.ErrorContains(t, err, "member id")

	other := c.entry(a.token("eu-3", time.Minute), a.address)
	other.HomeTrustDomain = "us.example.org"
	_, err = join.Enter(t.Context(), other)
	require.ErrorContains(t, err, `the joiner has cluster.trust_domain = "us.example.org", but this cluster's is `+
		`"eu.example.org"`)

	other.ClusterName = "us"
	_, err = join.Enter(t.Context(), other)
	require.ErrorContains(t, err, `the join token is for cluster "eu", but cluster.name is "us"`)

	elsewhere := c.entry(a.token("eu-3", time.Minute), a.address)
	elsewhere.Self.Address = b.address
	_, err = join.Enter(t.Context(), elsewhere)
	require.ErrorContains(t, err, "the leader eu-1 did not find member eu-3 at its address "+b.address)
}

func TestSecretIsSentOnlyToNamedMembers(t *testing.T) {
	a := newMember(t, "eu-1").form()
	token := a.token("eu-2", time.Minute)

	// The impostor at the address of a is a member of another cluster, whose port accepts joiners.
	impostor := newMember(t, "eu-1").form()
	eavesdropped := make(chan []byte, 1)
	relay, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() {
		defer close(eavesdropped)
		in, err := relay.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		out, err := net.Dial("tcp", impostor.address)
		if err != nil {
			return
		}
		defer out.Close()
		go func() { _, _ = io.Copy(in, out) }() // ends with the connection
		sent, _ := io.ReadAll(io.TeeReader(in, out))
		eavesdropped <- sent
	}()
	b := newMember(t, "eu-2").start()
	err = b.enter(token, relay.Addr().String())
	require.ErrorIs(t, err, join.ErrRefused)
	require.ErrorContains(t, err, "which the join token does not name")
	require.ErrorContains(t, err, "nothing was sent to it")

	// The joiner sent the hello, a change-cipher-spec and the alert that ended the handshake, and no application data,
	// which would follow the client's Finished.
	requireNoFinished(t, <-eavesdropped)
	require.NoError(t, relay.Close())
	accepted := gather(t, impostor, "entente_port_accepted_total", string(port.Join))
	assert.Zero(t, accepted, "the impostor's handshake was not completed")
}

func TestRemovedMemberIsDisconnected(t *testing.T) {
	a := newMember(t, "eu-1").form()
	b := newMember(t, "eu-2").joined(a)
	c := newMember(t, "eu-3").joined(a)
	cluster := func(m *member) ententev1.ClusterServiceServer { return m.manager.ClusterService() }

	_, err := cluster(c).RemoveMember(t.Context(), &ententev1.RemoveMemberRequest{Id: "eu-3"})
	require.ErrorContains(t, err, "member eu-3 cannot remove itself")
	_, err = cluster(a).RemoveMember(t.Context(), &ententev1.RemoveMemberRequest{Id: "eu-9"})
	require.ErrorContains(t, err, "the cluster has no member eu-9")

	_, err = cluster(b).RemoveMember(t.Context(), &ententev1.RemoveMemberRequest{Id: "eu-3", Compromised: true})
	require.NoError(t, err)
	require.Equal(t, membership.Removal{MemberID: "eu-3", Compromised: true}, <-a.removed)
	for _, m := range []*member{a, b} {
		m.eventually("refuses the removed member", func() error {
			if _, known := m.directory.MemberByIdentity(c.identity.Digest); known {
				return fmt.Errorf("known")
			}
			return nil
		})
		conn, err := c.port.Conn(m.id) // it may have learned of its removal, and not knock by itself
		require.NoError(t, err)
		_, err = ententev1.NewMemberServiceClient(conn).GetMembership(t.Context(), &ententev1.GetMembershipRequest{})
		require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
		requireEventuallyRefused(t, m, port.ReasonUnknownIdentity)
	}
	a.eventually("has cut its connections", func() error { // the one that led and had some
		if gather(t, a, "entente_port_closed_total", string(port.ReasonUnknownIdentity)) == 0 {
			return fmt.Errorf("no connection was closed for %s", port.ReasonUnknownIdentity)
		}
		return nil
	})

	// A leader that is removed transfers leadership first. The last member remains.
	leader, other := a, b
	if !a.store.IsLeader() {
		leader, other = b, a
	}
	_, err = cluster(other).RemoveMember(t.Context(), &ententev1.RemoveMemberRequest{Id: leader.id})
	require.NoError(t, err)
	require.True(t, other.store.IsLeader())
	_, err = cluster(leader).RemoveMember(t.Context(), &ententev1.RemoveMemberRequest{Id: leader.id})
	require.ErrorContains(t, err, "cannot remove itself")
	other.write()
}

// waitingProber ends no probe before it is released.
type waitingProber struct {
	membership.Prober
	begun   chan struct{} // receives one value for each probe
	release chan struct{}
}

func (p *waitingProber) ProbeIdentity(ctx context.Context, address string, want memberid.Digest) error {
	p.begun <- struct{}{}
	err := p.Prober.ProbeIdentity(ctx, address, want)
	<-p.release
	return err
}

// A member can make the leader probe any address, for as long as a probe takes. Other calls proceed during the probe,
// above all the removal of that member.
func TestWrongAddressesDoNotBlockRemoval(t *testing.T) {
	const calls = 4
	a := newMember(t, "eu-1")
	prober := &waitingProber{begun: make(chan struct{}, calls), release: make(chan struct{})}
	a.form()
	newMember(t, "eu-2").joined(a)
	c := newMember(t, "eu-3").joined(a)
	a.hold(prober)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and sends nothing
	require.NoError(t, err)
	conn, err := c.port.Conn("eu-1")
	require.NoError(t, err)
	probes := make(chan error, calls)
	for range calls {
		go func() {
			_, err := ententev1.NewMemberServiceClient(conn).AddServer(t.Context(), &ententev1.AddServerRequest{
				Member: &ententev1.MemberIdentity{Id: "eu-3", Address: silent.Addr().String(),
					Identity: c.identity.Digest[:]},
			})
			probes <- err
		}()
	}
	<-prober.begun
	_, err = a.manager.ClusterService().RemoveMember(t.Context(), &ententev1.RemoveMemberRequest{Id: "eu-3"})
	require.NoError(t, err, "no probe has ended yet: the removal did not wait for one")
	require.NoError(t, silent.Close())
	close(prober.release)
	for range calls {
		err := <-probes // the probe failed, or the removal closed the connection first
		require.Contains(t, []codes.Code{codes.FailedPrecondition, codes.Unavailable}, status.Code(err), "%v", err)
	}
	require.EqualError(t, a.hasRow("eu-3"), "no row of eu-3")
}

func TestReturningMemberLearnsAddresses(t *testing.T) {
	a := newMember(t, "eu-1").form()
	b := newMember(t, "eu-2").joined(a)
	c := newMember(t, "eu-3").joined(a)
	c.stop()
	d := newMember(t, "eu-4").joined(b)
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	answer, err := a.manager.ClusterService().TransferLeadership(ctx, &ententev1.TransferLeadershipRequest{Id: "eu-4"})
	require.NoError(t, err)
	require.Equal(t, "eu-4", answer.GetLeaderId())
	revision := a.write()

	// c has no row of eu-4, the leader, and can get it only from the log of the leader.
	c.start()
	_, known := c.directory.MemberByIdentity(d.identity.Digest)
	require.False(t, known)
	c.eventually("caught up under a leader that it did not know", c.reached(revision))
	_, known = c.directory.MemberByIdentity(d.identity.Digest)
	require.True(t, known)
}

func TestSnapshotTransferKeepsMembership(t *testing.T) {
	a := newMember(t, "eu-1").form()
	b := newMember(t, "eu-2").start()
	token := a.token("eu-2", time.Minute)
	open := a.token("eu-3", time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	api := clusterClient(t, a)
	snapshot := saveSnapshot(ctx, t, api)
	require.NoError(t, b.enter(token, a.address))
	pending, err := a.createToken(&ententev1.CreateJoinTokenRequest{MemberId: "eu-4"})
	require.NoError(t, err)

	restore, err := api.RestoreSnapshot(ctx)
	require.NoError(t, err)
	for _, chunk := range snapshot {
		require.NoError(t, restore.Send(&ententev1.RestoreSnapshotRequest{Data: chunk}))
	}
	_, err = restore.CloseAndRecv()
	require.NoError(t, err)

	require.NoError(t, a.hasRow("eu-2"), "the membership is that of now, not that of the snapshot")
	c := newMember(t, "eu-3").start()
	require.ErrorContains(t, c.enter(open, a.address), "void after a restore")
	waiting := newMember(t, "eu-4").start()
	require.ErrorContains(t, waiting.enter(pending, a.address), "void after a restore", "a restore approves nobody")
	require.ErrorContains(t, c.enter(token, a.address), "was used by member eu-2", "a spent token stays spent")
}

// gather returns the sum of the samples of a member's metric that have a label with this value.
func gather(t *testing.T, m *member, metric, label string) float64 {
	t.Helper()
	families, err := m.registry.Gather()
	require.NoError(t, err)
	var sum float64
	for _, f := range families {
		if f.GetName() != metric {
			continue
		}
		for _, sample := range f.GetMetric() {
			for _, l := range sample.GetLabel() {
				if l.GetValue() == label {
					sum += sample.GetCounter().GetValue() + sample.GetGauge().GetValue()
				}
			}
		}
	}
	return sum
}

func requireEventuallyRefused(t *testing.T, m *member, reason port.Reason) {
	t.Helper()
	m.eventually("refuses for "+string(reason), func() error {
		if gather(t, m, "entente_port_refused_total", string(reason)) == 0 {
			return fmt.Errorf("nothing was refused")
		}
		return nil
	})
}

func requireRefused(t *testing.T, m *member, protocol string, reason port.Reason) {
	t.Helper()
	requireEventuallyRefused(t, m, reason)
	require.NotZero(t, gather(t, m, "entente_port_refused_total", protocol))
	_, err := testutil.GatherAndLint(m.registry, "entente_port_refused_total")
	require.NoError(t, err)
}
