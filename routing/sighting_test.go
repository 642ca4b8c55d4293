package routing

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func TestImportsAgeByTheLeadersClock(t *testing.T) {
	const ttl = time.Minute
	type look struct {
		after   time.Duration // since the look before
		sighted bool          // right before it
		expired bool          // as it is stored
		expire  bool
		revive  bool
	}
	for name, looks := range map[string][]look{
		"never seen: a whole ttl of grace": {{}, {after: ttl}, {after: leaseSlack}, {after: time.Second, expire: true}},
		"a sighting starts it anew":        {{}, {after: ttl, sighted: true}, {after: ttl}, {after: leaseSlack}, {after: time.Second, expire: true}},
		"expired already: nothing to do":   {{}, {after: 2 * ttl, expired: true}},
		"expired and seen again":           {{expired: true}, {after: time.Second, expired: true, sighted: true, revive: true}},
		"expired, seen long ago":           {{expired: true, sighted: true, revive: true}, {after: sightSlack + time.Second, expired: true}},
	} {
		t.Run(name, func(t *testing.T) {
			l, now := newImportLedger(), epoch
			for n, at := range looks {
				// The leader looks every second; what passes in between is no pause of its own.
				for step := time.Second; step < at.after; step += time.Second {
					l.due(map[string]bool{"us.example.org": at.expired}, ttl, now.Add(step))
				}
				now = now.Add(at.after)
				if at.sighted {
					l.sight("us.example.org", now)
				}
				expire, revive := l.due(map[string]bool{"us.example.org": at.expired}, ttl, now)
				require.Equal(t, at.expire, len(expire) == 1, "look %d", n)
				require.Equal(t, at.revive, len(revive) == 1, "look %d", n)
			}
		})
	}
	t.Run("a leader that slept heard nothing", func(t *testing.T) {
		l := newImportLedger()
		l.due(map[string]bool{"us.example.org": false}, ttl, epoch)
		expire, _ := l.due(map[string]bool{"us.example.org": false}, ttl, epoch.Add(time.Hour))
		require.Empty(t, expire)
	})
	t.Run("a clock that was set back", func(t *testing.T) {
		l := newImportLedger()
		l.due(map[string]bool{"us.example.org": false}, ttl, epoch)
		l.due(map[string]bool{"us.example.org": false}, ttl, epoch.Add(-time.Hour))
		expire, _ := l.due(map[string]bool{"us.example.org": false}, ttl, epoch.Add(-time.Hour+time.Second))
		require.Empty(t, expire)
	})
}

// beat carries sightings to the leader, which a room is itself.
func (r *room) beat(full bool) {
	s := r.Sightings()
	if report := s.Collect(full); report != nil {
		s.Deliver("member-1", report)
	}
}

func TestASightingIsReportedNowAndThen(t *testing.T) {
	r := newRoom(t)
	s := r.Sightings()
	s.seen = func() []string { return []string{"us.example.org", "us.example.org"} }
	require.NotNil(t, s.Collect(false))
	require.Nil(t, s.Collect(false), "it was told a moment ago")
	require.NotNil(t, s.Collect(true))
	r.pass(sightEvery)
	require.NotNil(t, s.Collect(false))

	s.Deliver("member-2", []byte("garbage"))
	many := &statev1.ImportReport{Sightings: make([]*statev1.ImportSighting, maxSightings+1)}
	encoded, err := proto.Marshal(many)
	require.NoError(t, err)
	s.Deliver("member-2", encoded)
	require.Empty(t, r.sightings.seen)
}

// TestLostStreamAgesImports: what was imported is kept when its stream is gone, offered for import_ttl, and back with the stream.
func TestLostStreamAgesImports(t *testing.T) {
	eu, us := sharingPair(t)
	eu.has(t, "shop", "10.0.0.1:443", ententev1.Health_HEALTH_HEALTHY)
	eu.exports(t, export("shop", "us.example.org"))
	us.imports(t, "shop", "eu.example.org", "")
	p := connect(t, eu, us, "eu.example.org", "us.example.org")
	eventually(t, "the instances to arrive", func() bool { return us.imported(t, "shop", "eu.example.org").GetInstances() == 1 })
	hint := func() *ententev1.Hint {
		h, err := us.GetHint(admin(t), &ententev1.GetHintRequest{Service: "shop", Locality: registration().GetLocality()})
		require.NoError(t, err)
		return h
	}
	// pass lets time go by in steps, each of which the leader notices, while the stream stands or is gone.
	pass := func(d time.Duration) {
		for ; d > 0; d -= time.Second {
			us.pass(time.Second)
			us.beat(false)
			us.sightings.due(map[string]bool{"eu.example.org": us.imported(t, "shop", "eu.example.org").GetExpireTime() != nil}, us.importTTL, us.now())
		}
	}
	eventually(t, "the imports to be confirmed", func() bool { return len(p.ends[1].seen()) == 1 })
	pass(2 * us.importTTL)
	require.Empty(t, hint().GetReason(), "the stream stands")
	p.stop()
	pass(us.importTTL)
	require.Empty(t, hint().GetReason(), "an outage takes nothing away before import_ttl")
	pass(leaseSlack + sightEvery + time.Second)
	eventually(t, "the imports to expire", func() bool { return hint().GetReason() != "" })
	require.Equal(t, "import_expired: no stream with the cluster of eu.example.org has confirmed it for longer than import_ttl", hint().GetExcluded()[0].GetReason())
	require.Equal(t, "eu.example.org", hint().GetExcluded()[0].GetOrigin())
	require.Equal(t, ententev1.ImportState_IMPORT_STATE_EXPIRED, us.imported(t, "shop", "eu.example.org").GetState())
	require.True(t, us.shown(t, "shop")["10.0.0.1:443"].GetImportExpired(), "it is kept")

	connect(t, eu, us, "eu.example.org", "us.example.org")
	eventually(t, "the imports to be back", func() bool { us.beat(true); return hint().GetReason() == "" })
}

// TestAgreementsEnd: with an agreement end the exports and imports that were made under it, at once, and leave nothing behind.
func TestAgreementsEnd(t *testing.T) {
	eu, us := sharingPair(t)
	eu.has(t, "shop", "10.0.0.1:443", ententev1.Health_HEALTH_HEALTHY)
	eu.exports(t, export("shop", "us.example.org"))
	us.imports(t, "shop", "eu.example.org", "")
	connect(t, eu, us, "eu.example.org", "us.example.org")
	eventually(t, "the instances to arrive", func() bool { return us.imported(t, "shop", "eu.example.org").GetInstances() == 1 })

	us.agree(t, "eu.example.org", "eu.example.org", epoch.Add(time.Hour), true)
	eu.agree(t, "us.example.org", "us.example.org", epoch.Add(time.Hour), true)
	eventually(t, "the import to be removed", func() bool { return us.imported(t, "shop", "eu.example.org").GetService() == "" })
	eventually(t, "the export to be removed", func() bool {
		list, err := eu.ListServiceExports(admin(t), &ententev1.ListServiceExportsRequest{})
		require.NoError(t, err)
		return len(list.GetExports()) == 0
	})
	eventually(t, "what was imported to be cleared away", func() bool {
		return Instances.PrefixRevision(us.store.View(), "") > 0 && rowsOf(t, us) == 0
	})
}

// rowsOf counts the rows that imports left.
func rowsOf(t *testing.T, r *room) int {
	t.Helper()
	view, n := r.store.View(), 0
	for _, err := range Instances.All(view, "") {
		require.NoError(t, err)
		n++
	}
	for _, err := range ImportedSets.All(view, "") {
		require.NoError(t, err)
		n++
	}
	return n
}
