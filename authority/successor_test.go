package authority

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
)

// shortRoots gives members roots and JWT keys that live for 8 days, of which they sign for a part.
const shortRoots = 8 * 24 * time.Hour

func withShortRoots(c *Config) { c.RootTTL, c.JWTKeyTTL = shortRoots, shortRoots }

// successor returns the successor of a member's root in the home domain, or nil.
func (f *fleet) successor(c *node) *table.Successor {
	f.t.Helper()
	of, err := table.SuccessorsOf(f.read(), home.Name(), c.id)
	require.NoError(f.t, err)
	require.LessOrEqual(f.t, len(of), 1)
	if len(of) == 0 {
		return nil
	}
	return &of[0]
}

// svidAnchor returns the key ID of a successor.
func svidAnchor(s *table.Successor) string { return svid.AnchorID(s.Certificate) }

// live lets time pass in steps in which authorities are renewed.
func (f *fleet) live(d time.Duration) {
	f.t.Helper()
	const step = 6 * time.Hour
	for ; d > 0; d -= step {
		f.advance(step)
	}
}

// holds reports whether the bundle of the home domain has a successor.
func (f *fleet) holds(s *table.Successor) bool {
	f.t.Helper()
	return slices.ContainsFunc(f.bundle(home).X509Authorities(), s.Certificate.Equal)
}

// TestPeerThatIsOutSurvivesRotations: over several rotations of the roots and of the JWT keys of three members, each
// new SVID is verified by the bundle that a peer fetched as long before as the report of the configuration names.
func TestPeerThatIsOutSurvivesRotations(t *testing.T) {
	f := newThree(t, withShortRoots)
	lead := min(plan.RootLead(shortRoots, plan.DefaultCATTL), plan.JWTLead(shortRoots))
	type fetch struct {
		at time.Time
		b  *bundle.Bundle
	}
	fetches := []fetch{{f.now(), f.bundle(home)}}
	roots, jwtKeys := map[string]bool{}, map[string]bool{}
	const step = 4 * time.Hour
	for range 24 * 24 * time.Hour / step {
		f.advance(step)
		now, b := f.now(), f.bundle(home)
		fetches = append(fetches, fetch{now, b})
		for len(fetches) > 1 && now.Sub(fetches[1].at) >= lead {
			fetches = fetches[1:]
		}
		for i, c := range f.nodes {
			for _, svid := range f.issue(c, workload(i)) {
				require.NoError(t, svid.verify(fetches[0].b, now), "%s by the bundle of %v ago, at +%v", svid.what,
					now.Sub(fetches[0].at), f.ahead)
			}
		}
		for _, anchor := range b.X509Authorities() {
			roots[string(anchor.Raw)] = true
		}
		for id := range b.JWTAuthorities() {
			jwtKeys[id] = true
		}
		require.LessOrEqual(t, len(b.JWTAuthorities()), 3*len(f.nodes), "one past, one present and one next key each")
		require.LessOrEqual(t, len(b.X509Authorities()), 3*len(f.nodes), "one past, one present and one next root each")
	}
	require.GreaterOrEqual(t, len(roots), 10*len(f.nodes), "there were several rotations")
	require.GreaterOrEqual(t, len(jwtKeys), 10*len(f.nodes), "there were several rotations")
	for _, c := range f.nodes {
		require.Zero(t, c.metricSum("entente_authority_forced_activations_total"))
		names, err := c.keys.Names(context.Background())
		require.NoError(t, err)
		require.LessOrEqual(t, len(names), 8, "the keys of roots that are gone are deleted: %v", names)
	}
}

// TestSuccessorTakesOver: it signs without waiting, since the bundle has had it for long.
func TestSuccessorTakesOver(t *testing.T) {
	f, c := newSingle(t, withShortRoots)
	require.Nil(t, f.successor(c), "a new root needs none yet")
	f.live(shortRoots / 4)
	next := f.successor(c)
	require.NotNil(t, next)
	require.True(t, f.holds(next))
	require.Len(t, f.bundle(home).X509Authorities(), 2)
	list, err := c.AuthorityService().ListAnchors(context.Background(), &ententev1.ListAnchorsRequest{})
	require.NoError(t, err)
	details := map[string]string{}
	for _, a := range list.GetAnchors() {
		require.False(t, a.GetUpstream())
		details[a.GetSuccessorOf()] = a.GetDetail()
	}
	require.Equal(t, map[string]string{"": "", c.id: "Not every reader of the bundle may know it yet."}, details)
	require.Equal(t, 1.0, c.metric("entente_authority_anchors", "next"))

	for f.successor(c) != nil && string(f.successor(c).Certificate.Raw) == string(next.Certificate.Raw) {
		f.advance(12 * time.Hour)
	}
	x := f.active(c.id, ententev1.AuthorityKind_AUTHORITY_KIND_X509)
	require.Equal(t, svidAnchor(next), x.GetKeyId(), "the newest authority is below it, and active at once")
	require.True(t, f.holds(next))
}

// TestSuccessorsEnd: whatever ends the trust in the keys of a member, or in its root, ends the successor of the root in
// the same transaction, and nothing brings it back: no later day, and no restore of a snapshot that has it.
func TestSuccessorsEnd(t *testing.T) {
	ctx := context.Background()
	active := func(f *fleet, c *node) string {
		return f.active(c.id, ententev1.AuthorityKind_AUTHORITY_KIND_X509).GetId()
	}
	revoke := func(t *testing.T, c *node, r *ententev1.RevokeAuthorityRequest) {
		_, err := c.AuthorityService().RevokeAuthority(ctx, r)
		require.NoError(t, err)
	}
	for name, test := range map[string]struct {
		end     func(t *testing.T, f *fleet, c *node, next *table.Successor)
		revoked bool
		// gone is true if the member is no longer one.
		gone bool
	}{
		"its member's authority is tainted": {end: func(t *testing.T, f *fleet, c *node, _ *table.Successor) {
			_, err := c.AuthorityService().TaintAuthority(ctx, &ententev1.TaintAuthorityRequest{
				TrustDomain: home.Name(), Id: active(f, c),
			})
			require.NoError(t, err)
		}, revoked: true},
		"its member's JWT authority is tainted": {end: func(t *testing.T, f *fleet, c *node, _ *table.Successor) {
			_, err := c.AuthorityService().TaintAuthority(ctx, &ententev1.TaintAuthorityRequest{
				TrustDomain: home.Name(), Id: f.active(c.id, ententev1.AuthorityKind_AUTHORITY_KIND_JWT).GetId(),
			})
			require.NoError(t, err)
		}, revoked: true},
		"its member's authority is revoked": {end: func(t *testing.T, f *fleet, c *node, _ *table.Successor) {
			revoke(t, c, &ententev1.RevokeAuthorityRequest{
				TrustDomain: home.Name(), What: &ententev1.RevokeAuthorityRequest_Id{Id: active(f, c)},
			})
		}, revoked: true},
		"the present root is revoked": {end: func(t *testing.T, f *fleet, c *node, _ *table.Successor) {
			x := f.active(c.id, ententev1.AuthorityKind_AUTHORITY_KIND_X509)
			revoke(t, c, revokeAnchorRequest(x.GetKeyId()))
		}, revoked: true},
		"it is revoked itself": {end: func(t *testing.T, _ *fleet, c *node, next *table.Successor) {
			revoke(t, c, revokeAnchorRequest(svidAnchor(next)))
		}, revoked: true},
		"new anchors are requested": {end: func(t *testing.T, f *fleet, c *node, _ *table.Successor) {
			_, err := c.AuthorityService().RotateAuthorities(ctx, &ententev1.RotateAuthoritiesRequest{Anchors: true})
			require.NoError(t, err)
			f.settle()
		}},
		"a reserve is requested": {end: func(t *testing.T, f *fleet, c *node, _ *table.Successor) {
			_, err := c.AuthorityService().PrepareAuthorities(ctx, &ententev1.PrepareAuthoritiesRequest{})
			require.NoError(t, err)
			f.settle()
		}},
		"its key is lost": {end: func(t *testing.T, f *fleet, c *node, next *table.Successor) {
			names, err := c.keys.Names(ctx)
			require.NoError(t, err)
			for _, name := range names {
				if !strings.HasPrefix(name, upstream.RootPrefix) {
					continue
				}
				cert, err := c.keys.Certificate(name)
				require.NoError(t, err)
				if cert.Equal(next.Certificate) {
					require.NoError(t, c.keys.Delete(ctx, name))
				}
			}
			f.wake()
			f.settle()
		}},
		"its member is removed": {end: func(t *testing.T, f *fleet, c *node, _ *table.Successor) {
			f.removeNow(c, false)
		}, gone: true},
		"its member is removed as compromised": {end: func(t *testing.T, f *fleet, c *node, _ *table.Successor) {
			f.removeNow(c, true)
		}, revoked: true, gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			f, c := newSingle(t, withShortRoots)
			f.live(shortRoots / 4)
			next := f.successor(c)
			require.NotNil(t, next)
			var snapshot bytes.Buffer
			_, err := c.store.Snapshots().Save(ctx, &snapshot)
			require.NoError(t, err)

			test.end(t, f, c, next)
			require.False(t, f.holds(next), "it left the bundle")
			revoked, err := table.RevokedSet(f.read(), home.Name())
			require.NoError(t, err)
			require.Equal(t, test.revoked, revoked(next.Certificate.Raw))
			stays := func() {
				t.Helper()
				for range 2 * shortRoots / (24 * time.Hour) {
					f.advance(24 * time.Hour)
					require.False(t, f.holds(next), "it returned at +%v", f.ahead)
				}
			}
			_, err = c.store.Snapshots().Restore(ctx, bytes.NewReader(snapshot.Bytes()))
			require.NoError(t, err)
			require.False(t, f.holds(next), "a restore brought it back")
			stays()
			if !test.gone {
				require.NotNil(t, f.bundle(home))
				_, err := f.tryIssue(c, workload(1))
				require.NoError(t, err)
			}
		})
	}
}

// TestSuccessorsOfAnotherCluster: a snapshot that a new cluster adopts brings no successor of a root, since no member
// has its key.
func TestSuccessorsOfAnotherCluster(t *testing.T) {
	f, c := newSingle(t, withShortRoots)
	f.live(shortRoots / 4)
	next := f.successor(c)
	require.NotNil(t, next)
	var snapshot bytes.Buffer
	_, err := c.store.Snapshots().Save(context.Background(), &snapshot)
	require.NoError(t, err)
	other, d := newSingle(t, withShortRoots)
	_, err = d.store.Snapshots().Restore(context.Background(), &snapshot)
	require.NoError(t, err)
	require.False(t, other.holds(next))
}

// removeNow removes a member as the transaction of its removal does.
func (f *fleet) removeNow(c *node, compromised bool) {
	f.t.Helper()
	f.remove(c)
	_, err := c.store.Update(context.Background(), func(tx *raftstore.Tx) error {
		return c.RemoveMember(tx, c.id, compromised)
	})
	require.NoError(f.t, err)
}

// TestSuccessorsWaitForOlderMembers: a member of an older build would take the row of a next root for an anchor of an
// upstream, and knows no JWT key that is published ahead, so neither is published as long as there is one.
func TestSuccessorsWaitForOlderMembers(t *testing.T) {
	f, c := newSingle(t, withShortRoots)
	announce := func(version uint32) {
		t.Helper()
		_, err := c.store.Update(t.Context(), func(tx *raftstore.Tx) error {
			return errors.Join(
				membership.Members.Put(tx, "eu-1", &statev1.Member{CommandVersion: raftstore.CommandVersion}),
				membership.Members.Put(tx, "eu-2", &statev1.Member{CommandVersion: version}),
			)
		})
		require.NoError(t, err)
		f.settle()
	}
	announce(raftstore.SuccessorsVersion - 1)
	f.live(shortRoots / 3)
	require.Nil(t, f.successor(c))
	require.Len(t, f.bundle(home).X509Authorities(), 1)
	require.Len(t, f.bundle(home).JWTAuthorities(), 1)
	f.issue(c, workload(1))
	announce(raftstore.SuccessorsVersion)
	require.NotNil(t, f.successor(c))
	require.Len(t, f.bundle(home).JWTAuthorities(), 2)
}
