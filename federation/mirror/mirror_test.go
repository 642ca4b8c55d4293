package mirror

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

var (
	domains = []string{"a.example.org", "b.example.org", "c.example.org"}
	homes   = []string{"a.example.org", "b.example.org", "h.example.org"}
)

// tables returns what a mirror follows.
func tables() []raftstore.Prefix {
	return []raftstore.Prefix{
		relationship.Relationships.Prefix(""),
		relationship.ForeignBundles.Prefix(""),
		relationship.HubBundles.Prefix(""),
	}
}

// relationshipRow returns a relationship that this version can read.
func relationshipRow(name string) *statev1.Relationship {
	return &statev1.Relationship{
		TrustDomain: name, Url: "https://" + name, Profile: federationtest.WebProfile, CreateTime: timestamppb.Now(),
	}
}

// bundleOf returns a bundle without authorities.
func bundleOf(t require.TestingT, td string, sequence uint64) *bundle.Bundle {
	hint := time.Minute
	b, err := bundle.New(spiffeid.RequireTrustDomainFromString(td),
		bundle.Content{Sequence: &sequence, RefreshHint: &hint})
	require.NoError(t, err)
	return b
}

// drawRelationship returns any relationship, or one that cannot be read.
func drawRelationship(t *rapid.T, name string) *statev1.Relationship {
	row := relationshipRow(name)
	row.Generation = rapid.Uint64Range(1, 9).Draw(t, "generation")
	row.Suspended = rapid.Bool().Draw(t, "suspended")
	if rapid.Bool().Draw(t, "has a peer") {
		row.Peer = &statev1.RelationshipPeer{
			HomeTrustDomain: rapid.SampledFrom(homes).Draw(t, "home"),
			Addresses:       []string{fmt.Sprintf("127.0.0.1:%d", rapid.IntRange(1, 9).Draw(t, "port"))},
		}
	}
	if rapid.Bool().Draw(t, "is a hub") {
		row.Hub = &statev1.RelationshipHub{Include: []string{".example.org"}}
	}
	if rapid.Bool().Draw(t, "has an agreement") {
		row.Agreement = &statev1.RelationshipAgreement{Id: "agreement"}
	}
	if rapid.IntRange(0, 9).Draw(t, "unreadable") == 0 {
		row.Url = "http://" + name
	}
	return row
}

// drawChange makes one change of any table of federation.
func drawChange(t *rapid.T, tx *raftstore.Tx) error {
	name := rapid.SampledFrom(domains).Draw(t, "domain")
	remove := rapid.IntRange(0, 3).Draw(t, "remove") == 0
	document := bundleOf(t, name, rapid.Uint64Range(1, 9).Draw(t, "sequence")).Marshal()
	if rapid.IntRange(0, 9).Draw(t, "unreadable") == 0 {
		document = []byte("{")
	}
	switch rapid.IntRange(0, 2).Draw(t, "table") {
	case 0:
		if remove {
			return relationship.Relationships.Delete(tx, name)
		}
		return relationship.Relationships.Put(tx, name, drawRelationship(t, name))
	case 1:
		if remove {
			return relationship.ForeignBundles.Delete(tx, name)
		}
		return relationship.ForeignBundles.Put(tx, name, &statev1.Bundle{TrustDomain: name, Document: document})
	}
	hub := rapid.SampledFrom(domains).Draw(t, "hub")
	key := relationship.AttestationKey(name, hub)
	if remove {
		return relationship.HubBundles.Delete(tx, key)
	}
	return relationship.HubBundles.Put(tx, key, &statev1.HubBundle{TrustDomain: name, Hub: hub, Document: document})
}

// deleteAll deletes all rows.
func deleteAll(tx *raftstore.Tx) error {
	for _, name := range domains {
		if err := relationship.Relationships.Delete(tx, name); err != nil {
			return err
		}
		if err := relationship.ForeignBundles.Delete(tx, name); err != nil {
			return err
		}
		for _, hub := range domains {
			if err := relationship.HubBundles.Delete(tx, relationship.AttestationKey(name, hub)); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestApplyEqualsLoad: after any changes, the mirror is what a mirror that reads the whole state is, and every peer
// whose plan changed is among the homes that Apply returns.
func TestApplyEqualsLoad(t *testing.T) {
	store := raftstoretest.New(t)
	ignore := func(error) {}
	rapid.Check(t, func(t *rapid.T) {
		_, err := store.Update(context.Background(), deleteAll)
		require.NoError(t, err)
		view, followed := store.View(), New()
		require.NoError(t, followed.Load(view, ignore))
		watch := store.Watch(tables(), view.Revision())
		defer watch.Close()
		for range rapid.IntRange(1, 6).Draw(t, "revisions") {
			plans := plansOf(followed)
			changes := rapid.IntRange(1, 4).Draw(t, "changes")
			_, err := store.Update(context.Background(), func(tx *raftstore.Tx) error {
				for range changes {
					if err := drawChange(t, tx); err != nil {
						return err
					}
				}
				return nil
			})
			require.NoError(t, err)
			if store.View().Revision() == view.Revision() {
				continue // nothing changed
			}
			view = store.View()
			batch, err := watch.Next(context.Background())
			require.NoError(t, err)
			_, affected := followed.Apply(batch, ignore)

			loaded := New()
			require.NoError(t, loaded.Load(view, ignore))
			require.Equal(t, loaded.entries, followed.entries)
			require.Equal(t, loaded.index, followed.index)
			require.Equal(t, loaded.holdings, followed.holdings)
			require.Equal(t, loaded.attestations, followed.attestations)
			for home, plan := range plansOf(followed) {
				if !slices.Contains(affected, home) {
					require.Equal(t, plans[home], plan, "Apply returned %v", affected)
				}
			}
		}
	})
}

// plansOf returns the plans of all homes of the test.
func plansOf(c *Mirror) map[string]relationship.PeerPlan {
	plans := map[string]relationship.PeerPlan{}
	for _, home := range homes {
		plans[home], _ = c.PlanOf(home)
	}
	return plans
}

// write writes rows as one revision and returns a mirror of them, and what could not be read.
func write(t *testing.T, fn func(tx *raftstore.Tx) error) (c *Mirror, unreadable []string) {
	t.Helper()
	store := raftstoretest.New(t)
	_, err := store.Update(t.Context(), fn)
	require.NoError(t, err)
	c = New()
	require.NoError(t, c.Load(store.View(), func(err error) { unreadable = append(unreadable, err.Error()) }))
	return c, unreadable
}

// TestUnreadableRowsAreReported: a row that cannot be read is left out and named, and the others count.
func TestUnreadableRowsAreReported(t *testing.T) {
	a, b, c := domains[0], domains[1], domains[2]
	bad := &statev1.Bundle{TrustDomain: b, Document: []byte("{")}
	insecure := relationshipRow(b)
	insecure.Url = "http://" + b
	rows := func(tx *raftstore.Tx) error {
		for name, row := range map[string]*statev1.Relationship{
			a: relationshipRow(a), b: insecure, c: relationshipRow(c),
		} {
			if err := relationship.Relationships.Put(tx, name, row); err != nil {
				return err
			}
		}
		if err := relationship.ForeignBundles.Put(tx, b, bad); err != nil {
			return err
		}
		return relationship.HubBundles.Put(tx, relationship.AttestationKey(b, a),
			&statev1.HubBundle{TrustDomain: b, Hub: a, Document: bad.GetDocument()})
	}
	whole := []string{
		"stored bundle of b.example.org: stored bundle: bundle document of b.example.org: the document is malformed: " +
			"it is not JSON, byte 1: unexpected end of JSON input",
		"stored relationship with b.example.org: url is refused: the URL is not a valid bundle endpoint URL: " +
			`"http://b.example.org" has scheme "http"; https is needed; write https://HOST[:PORT][/PATH]`,
		"stored attestation of b.example.org/a.example.org by a hub: stored bundle: bundle document of " +
			"b.example.org: the document is malformed: it is not JSON, byte 1: unexpected end of JSON input",
	}
	loaded, unreadable := write(t, rows)
	require.Equal(t, whole, unreadable)
	require.Equal(t, []string{a, c}, loaded.Names())

	store := raftstoretest.New(t)
	view := store.View()
	watch := store.Watch(tables(), view.Revision())
	defer watch.Close()
	_, err := store.Update(t.Context(), rows)
	require.NoError(t, err)
	batch, err := watch.Next(t.Context())
	require.NoError(t, err)
	unreadable = nil
	followed := New()
	names, _ := followed.Apply(batch, func(err error) { unreadable = append(unreadable, err.Error()) })
	require.ElementsMatch(t, whole, unreadable)
	require.Equal(t, []string{a, b, c}, names, "what cannot be read any more is affected too")
	require.Equal(t, []string{a, c}, followed.Names())
}

// TestPlanOf: only relationships in force require something of a peer, and a suspended one still names it.
func TestPlanOf(t *testing.T) {
	const home = "h.example.org"
	peer := func(ports ...int) *statev1.RelationshipPeer {
		p := &statev1.RelationshipPeer{HomeTrustDomain: home}
		for _, port := range ports {
			p.Addresses = append(p.Addresses, fmt.Sprintf("127.0.0.1:%d", port))
		}
		return p
	}
	shared, suspended := relationshipRow(domains[0]), relationshipRow(domains[1])
	shared.Peer, suspended.Peer, suspended.Suspended = peer(3, 1), peer(9), true
	hub := relationshipRow(domains[2])
	hub.Peer, hub.Hub = peer(2, 1), &statev1.RelationshipHub{Include: []string{".example.org"}}
	alone := relationshipRow("alone.example.org")
	alone.Peer = &statev1.RelationshipPeer{HomeTrustDomain: "away.example.org"}
	alone.Suspended = true
	without := relationshipRow("without.example.org")
	c, unreadable := write(t, func(tx *raftstore.Tx) error {
		for _, row := range []*statev1.Relationship{shared, suspended, hub, alone, without} {
			if err := relationship.Relationships.Put(tx, row.GetTrustDomain(), row); err != nil {
				return err
			}
		}
		return relationship.ForeignBundles.Put(tx, domains[0], bundleOf(t, domains[0], 7).Row(time.Now()))
	})
	require.Empty(t, unreadable)

	plan, named := c.PlanOf(home)
	require.True(t, named)
	require.Equal(t, home, plan.Home)
	require.Equal(t, []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}, plan.Addresses)
	require.Len(t, plan.Wanted, 2)
	require.Equal(t, uint64(7), plan.Wanted[domains[0]].Sequence)
	require.True(t, plan.Wanted[domains[2]].Version().None(), "no bundle is stored yet")
	require.Len(t, plan.Hubs, 1)
	require.Contains(t, plan.Hubs, domains[2])

	plan, named = c.PlanOf("away.example.org")
	require.True(t, named, "a suspended relationship names its peer")
	require.Empty(t, plan.Wanted)
	require.Empty(t, plan.Addresses)

	_, named = c.PlanOf("never.example.org")
	require.False(t, named)
	require.ElementsMatch(t, []string{home, "away.example.org"}, c.Homes())
}

// TestPlanOfManyAddresses: of more addresses than a plan may have, it has the same ones each time.
func TestPlanOfManyAddresses(t *testing.T) {
	const home = "h.example.org"
	c, unreadable := write(t, func(tx *raftstore.Tx) error {
		for i, name := range federationtest.Names(6, "example.org") {
			row := relationshipRow(name)
			row.Peer = &statev1.RelationshipPeer{HomeTrustDomain: home}
			for j := range relationship.MaxPeerAddresses {
				row.Peer.Addresses = append(row.Peer.Addresses, fmt.Sprintf("127.0.%d.%d:443", i, j))
			}
			if err := relationship.Relationships.Put(tx, name, row); err != nil {
				return err
			}
		}
		return nil
	})
	require.Empty(t, unreadable)
	first, _ := c.PlanOf(home)
	require.Len(t, first.Addresses, maxPlanAddresses)
	require.Equal(t, "127.0.0.0:443", first.Addresses[0])
	for range 20 {
		again, _ := c.PlanOf(home)
		require.Equal(t, first, again)
	}
}
