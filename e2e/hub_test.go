package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// relate makes a relationship over a stream, with what else is to be set.
func relate(t *testing.T, here, there *cluster, set func(*ententev1.Relationship), paths ...string) {
	t.Helper()
	federate(t, here, there)
	rel := &ententev1.Relationship{TrustDomain: there.domain, Peer: &ententev1.Peer{HomeTrustDomain: there.domain}}
	for _, p := range there.members {
		rel.Peer.Addresses = append(rel.Peer.Addresses, p.api)
	}
	if set != nil {
		set(rel)
	}
	_, err := here.members[0].socket().
		Federation().
		UpdateRelationship(t.Context(), &ententev1.UpdateRelationshipRequest{
			Relationship: rel, UpdateMask: &fieldmaskpb.FieldMask{Paths: append(paths, "peer")},
		})
	require.NoError(t, err)
}

// relationshipOf returns the relationship of a cluster with a trust domain.
func relationshipOf(t *testing.T, c *cluster, domain string) (*ententev1.Relationship, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	return c.members[0].socket().
		Federation().
		GetRelationship(ctx, &ententev1.GetRelationshipRequest{TrustDomain: domain})
}

// TestAHubAndItsSpokes: two clusters that trust each other by a hub's word alone learn of each other's revocations at
// once, though everybody polls once an hour; the word goes no further than one hop; and a relationship of one's own
// comes first.
func TestAHubAndItsSpokes(t *testing.T) {
	hub, eu, us, far := newCluster(t, "hub", 1, endpointHint("1h")), newCluster(t, "eu", 1, endpointHint("1h")),
		newCluster(t, "us", 1, endpointHint("1h")), newCluster(t, "far", 1, endpointHint("1h"))
	takes := func(r *ententev1.Relationship) { r.Hub = &ententev1.Hub{Include: []string{".example.org"}} }
	for _, spoke := range []*cluster{eu, us} {
		relate(t, hub, spoke, func(r *ententev1.Relationship) { r.Attest = true }, "attest")
		relate(t, spoke, hub, takes, "hub")
	}
	// Another hub that accepts everything from eu, which is not a hub, has eu's bundle and no attestation by eu.
	relate(t, eu, far, nil)
	relate(t, far, eu, takes, "hub")

	byHub := func(spoke, other *cluster) {
		t.Helper()
		eventually(t, spoke.name+" has "+other.domain+" by the hub's word, over a stream", func() error {
			r, err := relationshipOf(t, spoke, other.domain)
			switch {
			case err != nil:
				return err
			case r.GetOriginHub() != hub.domain || r.GetFreshness() != ententev1.Freshness_FRESHNESS_FRESH:
				return fmt.Errorf("%v", r)
			}
			kept, err := relationshipOf(t, spoke, hub.domain)
			for _, s := range kept.GetStreams() {
				if s.GetConnected() && slices.Contains(s.GetConfirmed(), hub.domain+"/bundles") {
					return nil
				}
			}
			return fmt.Errorf("%v: %w", kept.GetStreams(), err)
		})
	}
	byHub(eu, us)
	byHub(us, eu)
	// What eu hosts from now on reaches far over the same stream, in order: all of eu's map before it has arrived then.
	later := "later.example.org"
	eu.members[0].command("domain", "create", later)
	eventually(t, "far has "+later+" by the word of eu, and all of eu's map", func() error {
		if r, err := relationshipOf(t, far, later); err != nil || r.GetOriginHub() != eu.domain {
			return fmt.Errorf("%v: %w", r, err)
		}
		r, err := relationshipOf(t, far, eu.domain)
		for _, s := range r.GetStreams() {
			if s.GetConnected() && slices.Contains(s.GetConfirmed(), eu.domain+"/bundles") {
				return nil
			}
		}
		return fmt.Errorf("%v: %w", r.GetStreams(), err)
	})
	for _, two := range []*cluster{hub, us} {
		_, err := relationshipOf(t, far, two.domain)
		require.Equal(t, codes.NotFound, status.Code(err), "the word of a hub went two hops: %s: %v", two.domain, err)
	}
	own, err := relationshipOf(t, far, eu.domain)
	require.NoError(t, err)
	require.Empty(t, own.GetOriginHub(), "far has a relationship with eu itself")

	// A distrust in us reaches eu through the hub.
	document := func() string {
		b, err := eu.members[0].socket().
			Bundles().
			GetBundle(t.Context(), &ententev1.GetBundleRequest{TrustDomain: us.domain})
		require.NoError(t, err)
		return string(b.GetDocument())
	}
	var revoked *ententev1.Authority
	eventually(t, "a JWT authority of us that eu knows", func() error {
		active := authoritiesOf(t, us.members[0], kindJWT, stateActive)
		if len(active) == 0 || !strings.Contains(document(), active[0].GetKeyId()) {
			return fmt.Errorf("there is none yet")
		}
		revoked = active[0]
		return nil
	})
	_, err = us.members[0].socket().Authorities().RevokeAuthority(t.Context(), &ententev1.RevokeAuthorityRequest{
		TrustDomain: us.domain, What: &ententev1.RevokeAuthorityRequest_Id{Id: revoked.GetId()},
	})
	require.NoError(t, err)
	eventually(t, "the revoked key to be gone from eu", func() error {
		if strings.Contains(document(), revoked.GetKeyId()) {
			return fmt.Errorf("it is there")
		}
		return nil
	})

	// A relationship of its own comes first, and the hub's word counts again when it ends.
	federate(t, eu, us)
	r, err := relationshipOf(t, eu, us.domain)
	require.NoError(t, err)
	require.Empty(t, r.GetOriginHub())
	_, err = eu.members[0].socket().
		Federation().
		DeleteRelationship(t.Context(), &ententev1.DeleteRelationshipRequest{TrustDomain: us.domain, ToHub: true})
	require.NoError(t, err)
	byHub(eu, us)

	// The hub withdraws its attestation: no cluster trusts us because of it any longer.
	hub.members[0].command("federation", "update", us.domain, "--attest=false")
	eventually(t, "eu trusts us no more", func() error {
		if _, err := relationshipOf(t, eu, us.domain); err == nil {
			return fmt.Errorf("it does")
		}
		return nil
	})
}
