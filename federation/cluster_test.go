package federation

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// TestMembersShareFetches tests that each relationship is fetched by one of three members, that each member has a
// share, and that the other members fetch the share of one that dies.
func TestMembersShareFetches(t *testing.T) {
	const count = 24
	c := raftstoretest.NewCluster(t, 3)
	members := []string{"member-1", "member-2", "member-3"}
	federationtest.MarkAlive(t, c.Store(0), members...)
	c.AwaitCaughtUp()

	web := federationtest.NewAuthority(t, "web.example.org")
	all := federationtest.Names(count, "example.org")
	documents := make(map[string][]byte)
	for _, name := range all {
		documents[name] = federationtest.NewAuthority(t, name).Every(time.Hour).Bundle(t, 1).Marshal()
	}
	p := federationtest.NewEndpoint(t, web, web.Bundle(t, 1))
	p.Handle(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(documents[strings.TrimPrefix(r.URL.Path, "/")])
	})

	rooms, stops := make([]*room, 3), make([]func(), 3)
	for i := range rooms {
		rooms[i] = newRoomOn(t, c.Store(i))
		stops[i] = rooms[i].run(t)
	}
	for _, name := range all {
		rooms[1].create(t, &ententev1.Relationship{
			TrustDomain: name, Url: strings.Replace(p.URL, "127.0.0.1", "localhost", 1) + "/" + name,
			Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB, WebRoots: web.PEM(),
		}, nil)
	}
	for _, r := range rooms {
		r.await(t, "every bundle", func(v *raftstore.View) bool {
			rows, err := relationship.ForeignBundles.List(v, "")
			require.NoError(t, err)
			return len(rows) == count
		})
	}
	require.Equal(t, count, p.Requests(), "each was fetched once, for the whole cluster")
	shares := make(map[string]int)
	list, err := rooms[2].service.ListRelationships(t.Context(), &ententev1.ListRelationshipsRequest{})
	require.NoError(t, err)
	for _, rel := range list.GetRelationships() {
		require.Equal(t, membership.Owner(rel.GetTrustDomain(), members), rel.GetOwner())
		shares[rel.GetOwner()]++
	}
	require.Len(t, shares, 3, "%v", shares)

	// The leader dies.
	dead := c.Leader()
	stops[dead]()
	c.Kill(dead)
	survivors := make([]string, 0, 2)
	for i, name := range members {
		if i != dead {
			survivors = append(survivors, name)
		}
	}
	left := c.Leader()
	federationtest.MarkAlive(t, c.Store(left), survivors...)
	ctx, cancel := context.WithTimeout(t.Context(), federationtest.WaitLimit)
	defer cancel()
	for p.Requests() < count+shares[members[dead]] {
		select {
		case <-p.Asked:
		case <-ctx.Done():
			t.Fatalf("%d of %d relationships are fetched by the survivors", p.Requests()-count, shares[members[dead]])
		}
	}
}
