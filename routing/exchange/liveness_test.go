package exchange

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/registry"
	"github.com/ententehq/entente/routing/routingtest"
)

func TestImportsExpireByTheLeadersClock(t *testing.T) {
	const ttl = time.Minute
	type check struct {
		after     time.Duration // since the previous check
		confirmed bool          // right before the check
		expired   bool          // as it is stored
		expire    bool
		revive    bool
	}
	for name, checks := range map[string][]check{
		"never confirmed: a whole ttl of grace": {
			{}, {after: ttl}, {after: registry.HeartbeatSlack}, {after: time.Second, expire: true},
		},
		"a confirmation restarts the ttl": {
			{}, {after: ttl, confirmed: true}, {after: ttl}, {after: registry.HeartbeatSlack}, {
				after:  time.Second,
				expire: true,
			},
		},
		"already expired: nothing to do": {{}, {after: 2 * ttl, expired: true}},
		"expired and confirmed again": {
			{expired: true}, {after: time.Second, expired: true, confirmed: true, revive: true},
		},
		"expired, confirmed long ago": {
			{expired: true, confirmed: true, revive: true}, {after: confirmSlack + time.Second, expired: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMember(t, "eu.example.org")
			for n, c := range checks {
				domains := map[string]bool{"us.example.org": c.expired}
				// The leader checks every second, so that it does not seem to have been away.
				left := c.after
				for ; left > time.Second; left -= time.Second {
					m.clock.Pass(time.Second)
					m.Liveness.due(domains, ttl)
				}
				m.clock.Pass(left)
				if c.confirmed {
					m.Liveness.Received.Set("us.example.org", m.clock.Now())
				}
				expire, revive := m.Liveness.due(domains, ttl)
				require.Equal(t, c.expire, len(expire) == 1, "check %d", n)
				require.Equal(t, c.revive, len(revive) == 1, "check %d", n)
			}
		})
	}
	domains := map[string]bool{"us.example.org": false}
	t.Run("a leader that was suspended received nothing", func(t *testing.T) {
		m := newMember(t, "eu.example.org")
		m.Liveness.due(domains, ttl)
		m.clock.Pass(time.Hour)
		expire, _ := m.Liveness.due(domains, ttl)
		require.Empty(t, expire)
	})
	t.Run("a clock that was set back", func(t *testing.T) {
		m := newMember(t, "eu.example.org")
		m.Liveness.due(domains, ttl)
		m.clock.Pass(-time.Hour)
		m.Liveness.due(domains, ttl)
		m.clock.Pass(time.Second)
		expire, _ := m.Liveness.due(domains, ttl)
		require.Empty(t, expire)
	})
}

func TestConfirmationsAreRepeated(t *testing.T) {
	m := newMember(t, "eu.example.org")
	l := m.Liveness
	l.confirmed = func() []string { return []string{"us.example.org", "us.example.org"} }
	require.NotNil(t, l.Collect(false))
	require.Nil(t, l.Collect(false), "it was reported a moment ago")
	require.NotNil(t, l.Collect(true))
	m.clock.Pass(confirmEvery)
	require.NotNil(t, l.Collect(false))
	l.confirmed = func() []string { return nil }
	require.Nil(t, l.Collect(true), "it is not confirmed any more")

	l.Deliver("member-2", []byte("garbage"))
	encoded, err := proto.Marshal(&statev1.ImportReport{
		Confirmations: make([]*statev1.ImportConfirmation, maxConfirmations+1),
	})
	require.NoError(t, err)
	l.Deliver("member-2", encoded)
	require.Empty(t, l.Received.All())
}

// TestLostStreamExpiresImports: imported instances are kept when their stream is lost, offered for the import ttl, and
// offered again when the stream is back.
func TestLostStreamExpiresImports(t *testing.T) {
	eu, us := newPair(t)
	eu.register(t, "shop", "10.0.0.1:443", ententev1.Health_HEALTH_HEALTHY)
	eu.exports(t, export("shop", "us.example.org"))
	us.imports(t, "shop", "eu.example.org", "")
	p := connect(t, eu, us, "eu.example.org", "us.example.org")
	routingtest.Eventually(t, "the instances to arrive", func() bool {
		return us.imported(t, "shop", "eu.example.org").GetInstances() == 1
	})
	reason := func() string { return us.hint(t, "shop").GetReason() }
	// pass moves the clock in steps, each of which the leader checks.
	pass := func(d time.Duration) {
		for ; d > 0; d -= time.Second {
			us.clock.Pass(time.Second)
			us.heartbeat(false)
			expired := us.imported(t, "shop", "eu.example.org").GetExpireTime() != nil
			us.Liveness.due(map[string]bool{"eu.example.org": expired}, DefaultImportTTL)
		}
	}
	routingtest.Eventually(
		t,
		"the imports to be confirmed",
		func() bool { return len(p.ends[1].confirmedDomains()) == 1 },
	)
	pass(2 * DefaultImportTTL)
	require.Empty(t, reason(), "the stream is open")
	p.stop()
	pass(DefaultImportTTL)
	require.Empty(t, reason(), "imports do not expire before import_ttl")
	pass(registry.HeartbeatSlack + confirmEvery + time.Second)
	routingtest.Eventually(t, "the imports to expire", func() bool { return reason() != "" })
	excluded := us.hint(t, "shop").GetExcluded()[0]
	require.Equal(
		t,
		"import_expired: no stream with the cluster of eu.example.org has confirmed it for longer than import_ttl",
		excluded.GetReason(),
	)
	require.Equal(t, "eu.example.org", excluded.GetOrigin())
	require.Equal(t, ententev1.ImportState_IMPORT_STATE_EXPIRED, us.imported(t, "shop", "eu.example.org").GetState())
	require.True(t, us.instances(t, "shop")["10.0.0.1:443"].GetImportExpired(), "the instance is kept")

	connect(t, eu, us, "eu.example.org", "us.example.org")
	routingtest.Eventually(
		t,
		"the imports to be offered again",
		func() bool { us.heartbeat(true); return reason() == "" },
	)
}

// TestAgreementsEnd: exports and imports end with their agreement at once, and leave nothing behind.
func TestAgreementsEnd(t *testing.T) {
	eu, us := newPair(t)
	eu.register(t, "shop", "10.0.0.1:443", ententev1.Health_HEALTH_HEALTHY)
	eu.exports(t, export("shop", "us.example.org"))
	us.imports(t, "shop", "eu.example.org", "")
	connect(t, eu, us, "eu.example.org", "us.example.org")
	routingtest.Eventually(t, "the instances to arrive", func() bool {
		return us.imported(t, "shop", "eu.example.org").GetInstances() == 1
	})

	us.agree(t, "eu.example.org", "eu.example.org", routingtest.Epoch.Add(time.Hour), true)
	eu.agree(t, "us.example.org", "us.example.org", routingtest.Epoch.Add(time.Hour), true)
	routingtest.Eventually(t, "the import to be removed", func() bool {
		return us.imported(t, "shop", "eu.example.org").GetService() == ""
	})
	routingtest.Eventually(t, "the export to be removed", func() bool {
		list, err := eu.ListServiceExports(routingtest.Admin(t), &ententev1.ListServiceExportsRequest{})
		require.NoError(t, err)
		return len(list.GetExports()) == 0
	})
	routingtest.Eventually(t, "the imported instances to be deleted", func() bool {
		return registry.Instances.PrefixRevision(us.store.View(), "") > 0 && importedRows(t, us) == 0
	})
}

// importedRows counts the rows that imports leave.
func importedRows(t *testing.T, m *member) (n int) {
	t.Helper()
	view := m.store.View()
	for _, err := range registry.Instances.All(view, "") {
		require.NoError(t, err)
		n++
	}
	for _, err := range registry.ImportedSets.All(view, "") {
		require.NoError(t, err)
		n++
	}
	return n
}
