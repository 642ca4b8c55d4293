package peer

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// TestPlansFollowEachChange: after any changes, the plans are those that result from reading all relationships again.
func TestPlansFollowEachChange(t *testing.T) {
	store, tables := raftstoretest.New(t), mirror.New()
	p, err := New(Config{
		Store: store, PlanOf: tables.PlanOf, Homes: tables.Homes, Now: time.Now, Logger: hclog.NewNullLogger(),
		Alive: func() ([]string, error) { return nil, nil },
	})
	require.NoError(t, err)
	reconcile := func() { p.reconciler.reconcile(t.Context(), p.due.Take()) }
	refuse := func(err error) { t.Error(err) }
	view := store.View()
	require.NoError(t, tables.Load(view, refuse))
	watch := store.Watch(
		[]raftstore.Prefix{relationship.Relationships.Prefix(""), relationship.ForeignBundles.Prefix("")},
		view.Revision(),
	)
	defer watch.Close()
	p.Plan("never-named.example.org")
	reconcile()
	_, known := p.plans.homes()
	require.False(t, known, "the relationships were not read yet")
	p.PlanAll()
	reconcile()
	_, known = p.plans.homes()
	require.True(t, known)

	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test that can be repeated
	a := federationtest.NewAuthority(t, "d.example.org")
	for step := range 200 {
		name := fmt.Sprintf("d%d.example.org", random.IntN(6))
		_, err := store.Update(t.Context(), func(tx *raftstore.Tx) error {
			switch random.IntN(4) {
			case 0:
				return relationship.Relationships.Delete(tx, name)
			case 1:
				b := *a
				b.TrustDomain = spiffeid.RequireTrustDomainFromString(name)
				next := b.Bundle(t, uint64(step+1)) //nolint:gosec // small
				return relationship.ForeignBundles.Put(tx, name, next.Row(time.Now()))
			}
			row := &statev1.Relationship{
				TrustDomain: name, Url: "https://127.0.0.1:1/", Profile: federationtest.WebProfile,
				Generation: uint64(step + 1), Suspended: random.IntN(4) == 0, //nolint:gosec // small
			}
			if home := random.IntN(4); home > 0 {
				row.Peer = &statev1.RelationshipPeer{
					HomeTrustDomain: fmt.Sprintf("h%d.example.org", home),
					Addresses:       []string{fmt.Sprintf("127.0.0.1:%d", 1+random.IntN(9))},
				}
			}
			return relationship.Relationships.Put(tx, name, row)
		})
		require.NoError(t, err)
		if store.View().Revision() == view.Revision() {
			continue // it deleted nothing
		}
		batch, err := watch.Next(t.Context())
		require.NoError(t, err)
		_, homes := tables.Apply(batch, refuse)
		p.Plan(homes...)
		reconcile()
		view = store.View()

		anew := mirror.New()
		require.NoError(t, anew.Load(view, refuse))
		require.Equal(t, indexed(anew), indexed(tables))
		plans, named := map[string]relationship.PeerPlan{}, map[string]bool{}
		for _, home := range anew.Homes() {
			named[home] = true
			if plan, _ := anew.PlanOf(home); len(plan.Wanted) > 0 {
				plans[home] = plan
			}
		}
		require.Equal(t, named, p.plans.named)
		require.Equal(t, plans, p.plans.byHome)
	}
}

// indexed is what the mirror finds by its indexes of hubs and agreements. Those of peers show in the plans.
func indexed(c *mirror.Mirror) map[string]map[string]bool {
	found := map[string]map[string]bool{}
	by := func(kind string) func(string, mirror.Entry) {
		found[kind] = map[string]bool{}
		return func(name string, _ mirror.Entry) { found[kind][name] = true }
	}
	c.EachHub(by("hubs"))
	c.EachAgreement(by("agreements"))
	return found
}

// TestBudgetSurvivesStreams: every stream of a peer uses the same budget, until no relationship names the peer.
func TestBudgetSurvivesStreams(t *testing.T) {
	all, now := budgets{byHome: map[string]*Budget{}}, time.Unix(1_800_000_000, 0)
	require.True(t, all.of("us.example.org").messages.AllowN(now, MessageBurst))
	require.False(t, all.of("us.example.org").messages.AllowN(now, 1), "another stream has no budget of its own")
	require.True(t, all.of("ap.example.org").messages.AllowN(now, 1))
	all.forget("us.example.org")
	require.True(t, all.of("us.example.org").messages.AllowN(now, 1))
	require.GreaterOrEqual(
		t,
		attestationBurst,
		2*session.MapChangesDomains,
		"one message of a hub never exceeds the burst",
	)
}
