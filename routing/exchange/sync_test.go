package exchange

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/routingtest"
)

// pipe is a stream between two members, without a network.
type pipe struct {
	ends [2]*pipeEnd
	stop func()
}

type pipeEnd struct {
	*Sync
	wake chan struct{}

	mu      sync.Mutex
	domains []string
	sets    int // that were sent
	err     error
}

func (e *pipeEnd) allow(domains ...string) {
	e.mu.Lock()
	e.domains = domains
	e.mu.Unlock()
	e.signal()
}

func (e *pipeEnd) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *pipeEnd) sent() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sets
}

// connect opens a stream between two members with the given home domains.
func connect(t *testing.T, a, b *member, homeA, homeB string) *pipe {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &pipe{}
	var work sync.WaitGroup
	for n, side := range []struct {
		here *member
		peer string
	}{{a, homeB}, {b, homeA}} {
		e := &pipeEnd{wake: make(chan struct{}, 1), domains: []string{side.peer}}
		e.Sync = side.here.NewSync(Stream{Home: side.peer, Wake: e.signal, Domains: func() []string {
			e.mu.Lock()
			defer e.mu.Unlock()
			return slices.Clone(e.domains)
		}})
		p.ends[n] = e
	}
	for n, e := range p.ends {
		other := p.ends[1-n]
		work.Go(func() { e.Run(ctx) })
		work.Go(func() {
			timer := time.NewTimer(0)
			defer timer.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-e.wake:
				case <-timer.C:
				}
				out, again := e.Next(time.Now())
				for _, m := range out {
					e.mu.Lock()
					e.sets += len(m.GetServiceSets().GetSets())
					e.mu.Unlock()
					if err := other.Receive(proto.Clone(m).(*ententev1.PeerMessage)); err != nil {
						e.mu.Lock()
						e.err = err
						e.mu.Unlock()
						return
					}
					other.signal()
				}
				if again > 0 {
					timer.Reset(again)
				}
			}
		})
	}
	p.stop = sync.OnceFunc(func() { cancel(); work.Wait() })
	t.Cleanup(func() {
		p.stop()
		for _, e := range p.ends {
			require.NoError(t, e.err)
		}
	})
	return p
}

func TestServicesAreShared(t *testing.T) {
	eu, us := newPair(t)
	eu.register(t, "shop", "10.0.0.1:443", ententev1.Health_HEALTH_HEALTHY)
	eu.register(t, "shop", "10.0.0.2:443", ententev1.Health_HEALTH_DRAINING)
	eu.exports(t, &ententev1.ServiceExport{Service: "shop", To: "us.example.org", Name: "shop-eu"})
	us.imports(t, "shop-eu", "eu.example.org", "shop")
	us.register(t, "shop", "10.0.0.2:443", ententev1.Health_HEALTH_HEALTHY)
	p := connect(t, eu, us, "eu.example.org", "us.example.org")
	routingtest.Eventually(
		t,
		"the instances to be received",
		func() bool { return us.imported(t, "shop", "eu.example.org").GetInstances() == 2 },
	)
	require.Equal(t, ententev1.ImportState_IMPORT_STATE_CURRENT, us.imported(t, "shop", "eu.example.org").GetState())

	hint := func() *ententev1.Hint { return us.hint(t, "shop") }
	offered := func() map[string]string {
		out := map[string]string{}
		for _, p := range hint().GetPriorities() {
			for _, l := range p.GetLocalities() {
				for _, e := range l.GetEndpoints() {
					out[e.GetAddress()] = e.GetOrigin()
				}
			}
		}
		return out
	}
	require.Equal(t, map[string]string{"10.0.0.1:443": "eu.example.org", "10.0.0.2:443": ""}, offered())
	require.Equal(
		t,
		"its address is offered already",
		hint().GetExcluded()[0].GetReason(),
		"what is registered here stands before what is imported",
	)

	// A change of health is sent, and a change that does not affect the set is not.
	before := p.ends[0].sent()
	eu.register(t, "other", "10.0.0.9:443", ententev1.Health_HEALTH_HEALTHY)
	eu.register(t, "shop", "10.0.0.1:443", ententev1.Health_HEALTH_UNHEALTHY)
	routingtest.Eventually(t, "the change to arrive", func() bool {
		return us.instances(t, "shop")["10.0.0.1:443"].GetHealth() == ententev1.Health_HEALTH_UNHEALTHY
	})
	require.Equal(t, before+1, p.ends[0].sent())

	// An imported instance cannot be deregistered here, and is not exported.
	_, err := us.DeregisterInstance(
		routingtest.Admin(t),
		&ententev1.DeregisterInstanceRequest{Service: "shop", Address: "10.0.0.1:443"},
	)
	require.ErrorContains(
		t,
		err,
		"is imported from eu.example.org, where it is registered; 'entente service unimport shop --from "+
			"eu.example.org' ends the import",
	)
	us.exports(t, &ententev1.ServiceExport{Service: "shop", To: "eu.example.org"})
	list, err := us.ListServiceExports(routingtest.Admin(t), &ententev1.ListServiceExportsRequest{})
	require.NoError(t, err)
	require.Zero(
		t,
		list.GetExports()[0].GetInstances(),
		"what is registered here is of eu.example.org, as what is imported",
	)

	// The export ends, and with it the imported instances. It is created again. The import ends.
	_, err = eu.UnexportService(
		routingtest.Admin(t),
		&ententev1.UnexportServiceRequest{Name: "shop-eu", To: "us.example.org"},
	)
	require.NoError(t, err)
	routingtest.Eventually(t, "the export to end", func() bool {
		return us.imported(t, "shop", "eu.example.org").GetState() == ententev1.ImportState_IMPORT_STATE_NOT_EXPORTED
	})
	require.Len(t, us.instances(t, "shop"), 1)
	eu.exports(t, &ententev1.ServiceExport{Service: "shop", To: "us.example.org", Name: "shop-eu"})
	routingtest.Eventually(
		t,
		"the export to be back",
		func() bool { return us.imported(t, "shop", "eu.example.org").GetInstances() == 2 },
	)
	_, err = us.UnimportService(
		routingtest.Admin(t),
		&ententev1.UnimportServiceRequest{Service: "shop", From: "eu.example.org"},
	)
	require.NoError(t, err)
	require.Len(t, us.instances(t, "shop"), 1, "imported instances do not count any more at once")
}

// TestUnchangedSetsAreNotSentAgain: a new stream starts with the digests of what each side has.
// TestExportsCarryTheOwnersInstances: once an exported service has an owner, only instances under the owner's IDs are
// exported. What is imported follows the list of imports alone, whoever owns the service here.
func TestExportsCarryTheOwnersInstances(t *testing.T) {
	eu, us := newPair(t)
	squat, own := routingtest.Registration(), routingtest.Registration()
	squat.SpiffeId, own.Address = "spiffe://eu.example.org/web", "10.0.0.2:443"
	eu.registerInstance(t, squat)
	eu.registerInstance(t, own)
	eu.exports(t, &ententev1.ServiceExport{Service: "shop", To: "us.example.org"})
	us.imports(t, "shop", "eu.example.org", "shop")
	owner := &ententev1.Grant{
		Role: ententev1.Role_ROLE_DISCOVERY, SpiffeId: "spiffe://eu.example.org/plane", PathPrefix: "/shop",
		TrustDomain: "eu.example.org", Services: []string{"shop"},
	}
	routingtest.Grant(t, routingtest.NewGuard(t, us.store), &ententev1.Grant{
		Role: ententev1.Role_ROLE_DISCOVERY, SpiffeId: "spiffe://eu.example.org/other", PathPrefix: "/other",
		TrustDomain: "eu.example.org", Services: []string{"shop"},
	})
	connect(t, eu, us, "eu.example.org", "us.example.org")
	routingtest.Eventually(t, "both instances to be received", func() bool { return len(us.instances(t, "shop")) == 2 })
	routingtest.Grant(t, routingtest.NewGuard(t, eu.store), owner)
	routingtest.Eventually(t, "the owner's instance alone", func() bool { return len(us.instances(t, "shop")) == 1 })
	require.Equal(t, own.GetSpiffeId(), us.instances(t, "shop")[own.GetAddress()].GetSpiffeId())
	list, err := eu.ListServiceExports(routingtest.Admin(t), &ententev1.ListServiceExportsRequest{})
	require.NoError(t, err)
	require.EqualValues(t, 1, list.GetExports()[0].GetInstances())
}

func TestUnchangedSetsAreNotSentAgain(t *testing.T) {
	eu, us := newPair(t)
	eu.register(t, "shop", "10.0.0.1:443", ententev1.Health_HEALTH_HEALTHY)
	eu.exports(t, export("shop", "us.example.org"))
	us.imports(t, "shop", "eu.example.org", "")
	first := connect(t, eu, us, "eu.example.org", "us.example.org")
	routingtest.Eventually(
		t,
		"the instances to be received",
		func() bool { return us.imported(t, "shop", "eu.example.org").GetInstances() == 1 },
	)
	require.Equal(t, 1, first.ends[0].sent())
	first.stop()
	revision := us.store.View().Revision()
	second := connect(t, eu, us, "eu.example.org", "us.example.org")
	routingtest.Eventually(
		t,
		"the peer to confirm what is stored",
		func() bool { return len(second.ends[1].confirmedDomains()) == 1 },
	)
	require.Zero(t, second.ends[0].sent())
	require.Equal(t, revision, us.store.View().Revision(), "something was written")

	// A suspended relationship withdraws the exports at the exporting side, until it is resumed.
	second.ends[0].allow()
	routingtest.Eventually(t, "the instances to go", func() bool {
		return us.imported(t, "shop", "eu.example.org").GetState() == ententev1.ImportState_IMPORT_STATE_NOT_EXPORTED
	})
	second.ends[0].allow("us.example.org")
	routingtest.Eventually(
		t,
		"the instances to return",
		func() bool { return us.imported(t, "shop", "eu.example.org").GetInstances() == 1 },
	)
}
