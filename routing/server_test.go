package routing

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/routingtest"
	"github.com/ententehq/entente/trust/standing"
)

// trustTable holds the state of each foreign domain as a row, so that hints can be watched as in production.
var trustTable = raftstore.NewTable[*statev1.Instance]("routing_test_trust")

type tableTrust struct{}

func (tableTrust) State(r raftstore.Reader, td spiffeid.TrustDomain) (standing.State, error) {
	if td.Name() == "eu.example.org" {
		return standing.Fresh, nil
	}
	row, found, err := trustTable.Get(r, td.Name())
	if err != nil || !found {
		return standing.Unknown, err
	}
	return standing.State(row.Value.GetWeight()), nil
}

func (tableTrust) Prefixes() []raftstore.Prefix { return []raftstore.Prefix{trustTable.Prefix("")} }

// fixture is the routing of one member, on a store of its own, with a clock that stands still until it is moved.
type fixture struct {
	*Manager
	*Server
	store *raftstore.Store
	clock *routingtest.Clock
	reg   *prometheus.Registry
}

// scopeKey is the context key of the scope of a caller. Without it, a caller sees all trust domains.
type scopeKey struct{}

var everything = access.NewScope("everything", func(spiffeid.TrustDomain) bool { return true })

func newFixture(t testing.TB) *fixture {
	t.Helper()
	r := &fixture{clock: routingtest.NewClock(), reg: prometheus.NewRegistry(), store: raftstoretest.New(t)}
	m, err := New(Config{
		Store: r.store, Trust: tableTrust{}, Audit: &routingtest.AuditLog{}, Registerer: r.reg,
		Scope: func(ctx context.Context) access.Scope {
			if scope, ok := ctx.Value(scopeKey{}).(access.Scope); ok {
				return scope
			}
			return everything
		},
		Now: r.clock.Now, LastContact: r.clock.LastContact,
	})
	require.NoError(t, err)
	r.Manager, r.Server = m, NewServer(m)
	return r
}

func (r *fixture) setTrust(t *testing.T, td string, state standing.State) {
	t.Helper()
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return trustTable.Put(tx, td, &statev1.Instance{Weight: uint32(state)})
	})
	require.NoError(t, err)
}

func TestInvalidRequests(t *testing.T) {
	r, ctx := newFixture(t), routingtest.Admin(t)
	before := r.store.View().Revision()
	register := func(change func(*ententev1.Instance)) func() error {
		return func() error {
			i := routingtest.Registration()
			change(i)
			_, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i})
			return err
		}
	}
	for want, call := range map[string]func() error{
		"not an instance: it is missing": func() error {
			_, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{})
			return err
		},
		`not an address: "shop.example.org:443"; write an IP literal and a port`: register(func(i *ententev1.Instance) {
			i.Address = "shop.example.org:443"
		}),
		"lies below /entente/, which is reserved for members": register(func(i *ententev1.Instance) {
			i.SpiffeId = "spiffe://eu.example.org/entente/member/eu-1"
		}),
		"not a lease: the secret is not 32 hexadecimal digits": register(
			func(i *ententev1.Instance) { i.Lease = "mine" },
		),
		`not an address: "10.0.0.1"; write an IP literal and a port`: func() error {
			_, err := r.DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{
				Service: "shop",
				Address: "10.0.0.1",
			})
			return err
		},
		`not a service name: "a/b" has '/' at byte 2`: func() error {
			_, err := r.GetService(ctx, &ententev1.GetServiceRequest{Name: "a/b"})
			return err
		},
		"not a locality: it is empty; at least a region is required": func() error {
			_, err := r.GetHint(ctx, &ententev1.GetHintRequest{Service: "shop"})
			return err
		},
		"not a service name: it is empty": func() error {
			_, err := r.GetHint(ctx, &ententev1.GetHintRequest{Service: "", Locality: euCaller.Proto()})
			return err
		},
		"consistency 9 is not known; stale and linearizable are": func() error {
			_, err := r.ListServices(ctx, &ententev1.ListServicesRequest{Read: &ententev1.ReadOptions{Consistency: 9}})
			return err
		},
	} {
		routingtest.Refused(t, call(), codes.InvalidArgument, want)
	}
	require.Equal(t, before, r.store.View().Revision())
}

func TestHintFollowsTrustAndHealth(t *testing.T) {
	r, ctx := newFixture(t), routingtest.Admin(t)
	hint := func() *ententev1.Hint {
		h, err := r.GetHint(ctx, &ententev1.GetHintRequest{Service: "shop", Locality: euCaller.Proto()})
		require.NoError(t, err)
		return h
	}
	require.Equal(t, "no instance is registered", hint().GetReason())

	far := routingtest.Registration()
	far.Address, far.SpiffeId, far.Locality = "10.0.0.2:443", usWorkload.String(), &ententev1.Locality{
		Region: "us",
		Zone:   "a",
	}
	_, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: far})
	require.NoError(t, err)
	h := hint()
	require.Empty(t, h.GetPriorities())
	require.Equal(t, standing.Unknown.Sentence(usWorkload.TrustDomain()), h.GetExcluded()[0].GetReason())
	require.Equal(
		t,
		"none of 1 instances can be authenticated from here; see the excluded instances for the reasons",
		h.GetReason(),
	)

	r.setTrust(t, "us.example.org", standing.Fresh)
	near := routingtest.Registration()
	near.Locality = &ententev1.Locality{Region: "eu", Zone: "b"}
	_, err = r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: near})
	require.NoError(t, err)
	h = hint()
	require.Empty(t, h.GetReason())
	require.Len(t, h.GetPriorities(), 2)
	require.EqualValues(t, 100, h.GetPriorities()[0].GetLoad())
	first := h.GetPriorities()[0].GetLocalities()[0]
	require.EqualValues(t, 100, first.GetShare())
	require.Equal(t, "10.0.0.1:443", first.GetEndpoints()[0].GetAddress())
	require.Equal(t, euWorkload.String(), first.GetEndpoints()[0].GetSpiffeId())

	near.Health = ententev1.Health_HEALTH_UNHEALTHY
	_, err = r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: near})
	require.NoError(t, err)
	h = hint()
	require.Zero(t, h.GetPriorities()[0].GetLoad())
	require.Empty(t, h.GetPriorities()[0].GetLocalities(), "an instance that must not be called is listed")
	require.EqualValues(t, 100, h.GetPriorities()[1].GetLoad())
	require.Equal(t, "it is unhealthy", h.GetExcluded()[0].GetReason())

	r.setTrust(t, "us.example.org", standing.Expired)
	h = hint()
	require.True(t, h.GetPriorities()[0].GetPanic(), "only the near instance is left")
	require.Equal(t, standing.Expired.Sentence(usWorkload.TrustDomain()), h.GetExcluded()[0].GetReason())

	list, err := r.ListServices(ctx, &ententev1.ListServicesRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetServices(), 1)
	require.Len(t, list.GetServices()[0].GetInstances(), 2)
}

func TestRun(t *testing.T) {
	r := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	cancel()
	require.NoError(t, <-done)
	_, err := New(Config{})
	require.EqualError(t, err, "routing: a store, the trust states and an audit log are required")
}

var (
	euCaller   = plan.Locality{Region: "eu", Zone: "a", SubZone: "1"}
	euWorkload = spiffeid.RequireFromString("spiffe://eu.example.org/shop")
	usWorkload = spiffeid.RequireFromString("spiffe://us.example.org/shop")
)
