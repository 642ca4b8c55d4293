package federation

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/fetch"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// TestAChangedMapLeavesTheOthersUnread: a map is read whole where it changed, or what was taken from it, and not
// because another hub's did.
func TestAChangedMapLeavesTheOthersUnread(t *testing.T) {
	r := newRoom(t)
	first, second := federationtest.NewAuthority(t, "hub1.example.org"), federationtest.NewAuthority(t,
		"hub2.example.org")
	a, b := federationtest.NewAuthority(t, "a.example.org"), federationtest.NewAuthority(t, "b.example.org")
	p1, p2 := federationtest.NewEndpoint(t, first, first.Bundle(t, 1)), federationtest.NewEndpoint(t, second,
		second.Bundle(t, 1))
	whole := p1.ServeTaggedMap(first.Bundle(t, 1), "one", mapOf(t, a.Bundle(t, 5)))
	p2.ServeTaggedMap(second.Bundle(t, 1), "two", mapOf(t, b.Bundle(t, 5)))
	r.takes(t, first, p1, ".example.org")
	r.takes(t, second, p2, ".example.org")
	r.refresh(t, "hub1.example.org")
	r.refresh(t, "hub2.example.org")
	before := *whole
	require.Positive(t, before)

	p2.ServeTaggedMap(second.Bundle(t, 1), "three", mapOf(t, b.Bundle(t, 6)))
	r.refresh(t, "hub2.example.org")
	_, sequence := r.word(t, "b.example.org")
	require.EqualValues(t, 6, sequence)
	r.refresh(t, "hub1.example.org")
	require.Equal(t, before, *whole, "nothing changed about this hub")

	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return relationship.HubBundles.Delete(tx, relationship.AttestationKey("a.example.org", "hub1.example.org"))
	})
	require.NoError(t, err)
	r.refresh(t, "hub1.example.org")
	require.Equal(t, before+1, *whole, "what was taken is gone")
	_, sequence = r.word(t, "a.example.org")
	require.EqualValues(t, 5, sequence)
}

// TestAStreamedMapIsLookedAt: while a stream keeps a map up to date, its endpoint is asked whether it serves one, and
// the map is read where that is not said, once a day, and where an operator asks.
func TestAStreamedMapIsLookedAt(t *testing.T) {
	r, hub, ap := newRoom(t), federationtest.NewAuthority(t, "hub.example.org"), federationtest.NewAuthority(t,
		"ap.example.org")
	p := federationtest.NewEndpoint(t, hub, hub.Bundle(t, 1))
	rel := spiffeRelationship(hub, p)
	rel.Peer, rel.Hub = &ententev1.Peer{
		HomeTrustDomain: "hub.example.org",
	}, &ententev1.Hub{
		Include: []string{"ap.example.org"},
	}
	r.create(t, rel, hub.Bundle(t, 1))
	document, heads := mapOf(t, ap.Bundle(t, 1)), true
	p.Handle(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && !heads {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		_, _ = w.Write(document)
	})
	m := r.manager
	read := func(byHand bool) string {
		t.Helper()
		b, err := m.basisOf(r.store.View(), "hub.example.org")
		require.NoError(t, err)
		if byHand {
			b.wait = fetch.Requested()
		}
		result, _, err := m.readMap(t.Context(), "hub.example.org", b)
		require.NoError(t, err)
		return result
	}
	require.Equal(t, relationship.ResultStored, read(false))
	require.Equal(t, relationship.ResultUnchanged, read(false), "no stream keeps it up to date")

	m.covers = func(home, name string) bool { return home == "hub.example.org" && name == home+relationship.MapSuffix }
	require.Equal(t, relationship.ResultConfirmed, read(false))
	require.Equal(t, relationship.ResultUnchanged, read(true), "an operator wants to know")
	heads = false
	require.Equal(t, relationship.ResultUnchanged, read(false), "the endpoint answers to GET alone")
	heads = true
	m.mapReadings.compared("hub.example.org", m.now().Add(-compareMapEvery))
	require.Equal(t, relationship.ResultUnchanged, read(false))
	require.Equal(t, relationship.ResultConfirmed, read(false))
	m.mapReadings.forget("hub.example.org")
	require.Equal(t, relationship.ResultUnchanged, read(false), "this member has never compared it")

	require.Equal(t, relationship.ResultConfirmed, read(false))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, m.followTables(over), context.Canceled)
	require.Equal(t, relationship.ResultUnchanged, read(false), "the tables were read anew, as after a restore")
}

func TestComparedLately(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for name, c := range map[string]struct {
		at   time.Time
		want bool
	}{
		"never":                  {time.Time{}, false},
		"just now":               {now, true},
		"within the day":         {now.Add(time.Second - compareMapEvery), true},
		"a day ago":              {now.Add(-compareMapEvery), false},
		"the clock was set back": {now.Add(time.Second), false},
	} {
		require.Equal(t, c.want, comparedLately(c.at, now), name)
	}
}
