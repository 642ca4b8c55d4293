package registry

import (
	"context"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/routingtest"
)

// under returns the instance of the tests under the lease of a holder, or under none.
func under(h *holderClient) *ententev1.Instance {
	i := routingtest.Registration()
	if h != nil {
		i.Lease = h.secret
	}
	return i
}

// TestHandOver: an address changes hands only from a lease that has run out, or by an explicit take-over, and the
// holder learns.
func TestHandOver(t *testing.T) {
	for name, test := range map[string]struct {
		leased   bool // the new registration has a lease
		lapsed   bool // the present lease has run out
		takeOver bool
		refused  bool
	}{
		"held, under another lease":             {leased: true, refused: true},
		"held, without a lease":                 {refused: true},
		"held, taken over by another lease":     {leased: true, takeOver: true},
		"held, taken over without a lease":      {takeOver: true},
		"run out, under another lease":          {leased: true, lapsed: true},
		"run out, without a lease":              {lapsed: true},
		"run out, taken over without a mention": {leased: true, lapsed: true, takeOver: true},
	} {
		t.Run(name, func(t *testing.T) {
			m, ctx := newMember(t), routingtest.Admin(t)
			m.Tracker.Reset()
			first, err := m.hold(t, routingtest.Local, tenSeconds())
			require.NoError(t, err)
			_, err = m.register(ctx, under(first))
			require.NoError(t, err)
			if test.lapsed {
				m.sweeps(t, 20, nil)
			}
			var second *holderClient
			if test.leased {
				second, err = m.hold(t, routingtest.Local, tenSeconds())
				require.NoError(t, err)
			}
			made, err := m.RegisterInstance(
				ctx, &ententev1.RegisterInstanceRequest{Instance: under(second), TakeOver: test.takeOver},
			)
			service, failed := m.GetService(ctx, &ententev1.GetServiceRequest{Name: "shop"})
			require.NoError(t, failed)
			require.Len(t, service.GetInstances(), 1)
			answer, failed := first.send(&ententev1.KeepLeaseRequest{})
			require.NoError(t, failed)
			if test.refused {
				routingtest.Refused(t, err, codes.FailedPrecondition, "the lease "+first.lease.GetId()+
					" of the local administrator holds the instance of shop at 10.0.0.1:443 and renews it: end that "+
					"holder, wait until its lease has run out, or take the address from it with take_over")
				require.Equal(t, first.lease.GetId(), service.GetInstances()[0].GetLease())
				require.Empty(t, answer.GetLost())
				return
			}
			require.NoError(t, err)
			require.Equal(t, made.GetLease(), service.GetInstances()[0].GetLease())
			require.Len(t, answer.GetLost(), 1)
			lost := answer.GetLost()[0]
			require.Equal(t, "shop at 10.0.0.1:443 by the local administrator under "+made.GetLease(),
				lost.GetService()+" at "+lost.GetAddress()+" by "+lost.GetBy()+" under "+lost.GetLease())
			require.False(t, lost.GetRemoved())
			list, err := m.ListLeases(ctx, &ententev1.ListLeasesRequest{})
			require.NoError(t, err)
			for _, l := range list.GetLeases() {
				if l.GetId() == first.lease.GetId() {
					require.True(t, proto.Equal(lost, l.GetLost()[0]))
				}
			}
			// The holder takes it back, and has lost nothing.
			_, err = m.RegisterInstance(
				ctx, &ententev1.RegisterInstanceRequest{Instance: under(first), TakeOver: true},
			)
			require.NoError(t, err)
			answer, err = first.send(&ententev1.KeepLeaseRequest{})
			require.NoError(t, err)
			require.Empty(t, answer.GetLost())
		})
	}
}

// TestHolderIsNamedToThoseWhoSeeIt: a caller that does not see the instance learns that there is a holder, and nothing
// about it. The holder learns as little of a caller whose instance it does not see.
func TestHolderIsNamedToThoseWhoSeeIt(t *testing.T) {
	m := newMember(t)
	holder, err := m.hold(t, routingtest.Plane, tenSeconds())
	require.NoError(t, err)
	only := func(domain string) access.Scope {
		return access.NewScope(domain, func(td spiffeid.TrustDomain) bool { return td.Name() == domain })
	}
	row, _, err := Leases.Get(m.store.View(), holder.lease.GetId())
	require.NoError(t, err)
	shop := Instance{Service: "shop", Lease: row.Key}
	shop.ID = spiffeid.RequireFromString("spiffe://eu.example.org/shop")
	for domain, want := range map[string]string{
		"eu.example.org": "the lease " + row.Key + " of spiffe://eu.example.org/plane holds the instance of shop",
		"us.example.org": "another lease holds the instance of shop",
	} {
		m.Registry.Registrar.scope = func(context.Context) access.Scope { return only(domain) }
		err := m.Registry.Registrar.heldElsewhere(routingtest.Admin(t), m.store.View(), shop)
		routingtest.Refused(t, err, codes.FailedPrecondition, want)
		lost := lostProto([]*statev1.LostInstance{{By: "b", Lease: "7", TrustDomain: "eu.example.org"}}, only(domain))
		require.Equal(t, domain == "eu.example.org", lost[0].GetBy() == "b" && lost[0].GetLease() == "7")
		require.Equal(t, domain == "us.example.org", lost[0].GetBy() == "" && lost[0].GetLease() == "")
	}
}

// TestRemovalIsNotified: the holder learns that another caller removed its instance.
func TestRemovalIsNotified(t *testing.T) {
	m, ctx := newMember(t), routingtest.Admin(t)
	h, err := m.hold(t, routingtest.Local, tenSeconds())
	require.NoError(t, err)
	_, err = m.register(ctx, under(h))
	require.NoError(t, err)
	_, err = m.DeregisterInstance(
		ctx, &ententev1.DeregisterInstanceRequest{Service: "shop", Address: "10.0.0.1:443"},
	)
	require.NoError(t, err)
	answer, err := h.send(&ententev1.KeepLeaseRequest{})
	require.NoError(t, err)
	require.Len(t, answer.GetLost(), 1)
	require.True(t, answer.GetLost()[0].GetRemoved())
	require.Equal(t, "the local administrator", answer.GetLost()[0].GetBy())
	// An upload under the lease has it again.
	_, err = m.replace(t, routingtest.Local, &ententev1.ReplaceTarget{Lease: h.secret},
		[]*ententev1.Instance{routingtest.Registration()})
	require.NoError(t, err)
	answer, err = h.send(&ententev1.KeepLeaseRequest{})
	require.NoError(t, err)
	require.Empty(t, answer.GetLost())
}

// TestLossesAreBounded: a lease lists its newest losses.
func TestLossesAreBounded(t *testing.T) {
	m, ctx := newMember(t), routingtest.Admin(t)
	h, err := m.hold(t, routingtest.Local, tenSeconds())
	require.NoError(t, err)
	list := routingtest.Several("shop", maxLost+1, 1)
	_, err = m.replace(t, routingtest.Local, &ententev1.ReplaceTarget{Lease: h.secret}, list)
	require.NoError(t, err)
	for _, i := range list {
		_, err := m.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i, TakeOver: true})
		require.NoError(t, err)
		m.clock.Pass(time.Millisecond)
	}
	answer, err := h.send(&ententev1.KeepLeaseRequest{})
	require.NoError(t, err)
	require.Len(t, answer.GetLost(), maxLost)
	require.Equal(t, list[1].GetAddress(), answer.GetLost()[0].GetAddress())
}
