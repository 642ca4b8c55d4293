package authority

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/internal/clock"
	"github.com/ententehq/entente/authority/internal/loop"
	"github.com/ententehq/entente/authority/issue"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
)

// awaitOwn waits until a member has an SVID of its own that accept accepts.
func (f *fleet) awaitOwn(c *node, id spiffeid.ID, accept func(*issue.OwnSVID) bool) *issue.OwnSVID {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	for {
		changed := c.changed.Next()
		if svid := c.own.Get(id); svid != nil && accept(svid) {
			return svid
		}
		if err := loop.WaitFor(ctx, changed, pollInterval); err != nil {
			f.t.Fatalf("member %s has no such SVID of %s", c.id, id)
		}
	}
}

func anyOwn(*issue.OwnSVID) bool { return true }

// TestOwnSVIDs: every member gets its own names, whichever member signs, and renews them at half of their life, or at
// once when what signed them is no longer published.
func TestOwnSVIDs(t *testing.T) {
	f := newThree(t, nil)
	for _, c := range f.nodes {
		member, err := svid.MemberID(home, c.id)
		require.NoError(t, err)
		endpoint, err := svid.EndpointID(home)
		require.NoError(t, err)
		for _, id := range []spiffeid.ID{member, endpoint} {
			f.awaitOwn(c, id, anyOwn)
		}
		tlsCertificate, err := c.MemberSVID()
		require.NoError(t, err)
		id, _, err := x509svid.ParseAndVerify(tlsCertificate.Certificate, f.bundle(home), x509svid.WithTime(f.now()))
		require.NoError(t, err)
		require.Equal(t, member, id)
		tlsCertificate, err = c.EndpointSVID(home)
		require.NoError(t, err)
		require.Equal(t, endpoint.String(), tlsCertificate.Leaf.URIs[0].String())
		_, err = c.EndpointSVID(spiffeid.RequireTrustDomainFromString("us.example.org"))
		require.ErrorIs(t, err, issue.ErrNoSVID)
	}
	c := f.nodes[1]
	id, err := svid.MemberID(home, c.id)
	require.NoError(t, err)
	first := f.awaitOwn(c, id, anyOwn)
	issued := first.Certificate.Leaf.NotBefore.Add(svid.Backdate)
	life := first.Certificate.Leaf.NotAfter.Sub(issued)
	require.LessOrEqual(t, first.Renew.Sub(issued), life/2)
	require.GreaterOrEqual(t, first.Renew.Sub(issued), life*2/5)
	f.advance(first.Renew.Sub(f.now()) + time.Second)
	second := f.awaitOwn(c, id, func(s *issue.OwnSVID) bool { return s != first })

	// What signed it is gone from the bundle.
	_, err = c.store.Update(context.Background(), txDelete(table.AuthorityKey(home.Name(), second.Authority)))
	require.NoError(t, err)
	third := f.awaitOwn(c, id, func(s *issue.OwnSVID) bool { return s.Authority != second.Authority })
	require.NotEqual(t, second.Certificate.Leaf.SerialNumber, third.Certificate.Leaf.SerialNumber)
}

// TestForwarding: a member without an active authority forwards requests to another one, to the next one if that is
// down, and returns the reasons if none can sign.
func TestForwarding(t *testing.T) {
	f := newThree(t, nil)
	first := slices.IndexFunc(f.nodes,
		func(c *node) bool { return c.issuer.State().Domains[home].Signer(plan.X509) != "" })
	require.GreaterOrEqual(t, first, 0)
	signer, others := f.nodes[first], slices.Delete(slices.Clone(f.nodes), first, first+1)
	r, err := others[0].SVIDService().IssueX509SVID(caller, x509Request(t, workload(1)))
	require.NoError(t, err)
	lines := signer.audit.about("sign x509-svid")
	last := lines[len(lines)-1]
	require.Equal(t, "spiffe://eu.example.org/ci through member "+others[0].id, last.Caller)
	require.Contains(t, last.Detail, r.GetAuthorityId())

	f.halt(signer)
	ctx, cancel := context.WithTimeout(caller, testTimeout)
	defer cancel()
	_, err = others[0].SVIDService().IssueX509SVID(ctx, x509Request(t, workload(1)))
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorContains(t, err, "no member could sign for eu.example.org: member "+signer.id)

	f.advance(plan.HintsBeforeUse * plan.DefaultRefreshHint) // the others are known now
	for _, c := range others {
		f.issue(c, workload(2))
		require.NotEmpty(t, c.issuer.State().Domains[home].Signer(plan.X509))
	}

	// A member without contact to the leader for the signing grace forwards requests.
	silent, left := others[0], others[1]
	silent.LastContactNow()
	silent.set(func() { silent.silent = true })
	f.advance(plan.DefaultSigningGrace + time.Minute)
	require.EqualError(t, silent.issuer.CanSign(),
		"this member's last contact to the leader was 1h1m0s ago, and it signs for 1h0m0s without")
	signed := left.metricSum("entente_authority_signatures_total")
	f.issue(silent, workload(3))
	require.GreaterOrEqual(t, left.metricSum("entente_authority_signatures_total"), signed+2)
	_, err = silent.SigningService().SignX509SVID(asMember("member-1"), signRequest(t, workload(1)))
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
}

// LastContactNow records a contact to the leader now.
func (c *node) LastContactNow() { c.config.Contact.LastContact() }

// TestSigningServiceIsForMembers: only members get signatures there, and no member gets a name of another.
func TestSigningServiceIsForMembers(t *testing.T) {
	_, c := newSingle(t, nil)
	member := access.WithCaller(context.Background(), access.MemberCaller("member-2"))
	for name, test := range map[string]struct {
		ctx       context.Context
		id        string
		forMember bool
		want      string
	}{
		"a workload": {
			caller, workload(1), false,
			"only members of this cluster can forward requests, and the caller is spiffe://eu.example.org/ci",
		},
		"another member's name": {
			member, "spiffe://eu.example.org/entente/member/member-1", true,
			"member member-2 cannot have spiffe://eu.example.org/entente/member/member-1; only " +
				"spiffe://eu.example.org/entente/member/member-2 and spiffe://eu.example.org/entente/bundle-endpoint",
		},
		"reserved for another": {
			member, "spiffe://eu.example.org/entente/member/member-2", false, "only the server itself issues",
		},
		"not reserved as member": {member, workload(1), true, "is not below /entente/"},
		"some other reserved":    {member, "spiffe://eu.example.org/entente/root", true, "member member-2 cannot have"},
	} {
		t.Run(name, func(t *testing.T) {
			request := signRequest(t, test.id)
			request.ForMember = test.forMember
			_, err := c.SigningService().SignX509SVID(test.ctx, request)
			require.Equal(t, codes.PermissionDenied, status.Code(err))
			require.ErrorContains(t, err, test.want)
		})
	}
	for _, id := range []string{
		"spiffe://eu.example.org/entente/member/member-2", "spiffe://eu.example.org/entente/bundle-endpoint",
	} {
		_, err := c.SigningService().
			SignX509SVID(member, &ententev1.SignX509SVIDRequest{Request: x509Request(t, id), ForMember: true})
		require.NoError(t, err)
	}
	_, err := c.SigningService().SignJWTSVID(caller, &ententev1.SignJWTSVIDRequest{Request: jwtRequest("a")})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
}

// TestRestart: a restarted member has its keys, and a member that lost them retires what it cannot use.
func TestRestart(t *testing.T) {
	f, c := newSingle(t, nil)
	before := f.list(home)
	f.halt(c)
	f.start(c)
	f.settle()
	require.Equal(t, ids(before), ids(f.list(home)))
	require.NotEmpty(t, c.issuer.State().Domains[home].Signer(plan.X509))
	f.issue(c, workload(1))
	requireModes(t, c.config.KeyDir)

	f.halt(c)
	require.NoError(t, os.RemoveAll(c.config.KeyDir))
	f.start(c)
	f.settle()
	states := map[string]int{}
	for _, a := range f.list(home) {
		states[a.GetState().String()]++
		require.Equal(t, slices.Contains(ids(before), a.GetId()),
			a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_RETIRING)
	}
	require.Equal(t, map[string]int{"AUTHORITY_STATE_RETIRING": 2, "AUTHORITY_STATE_ACTIVE": 2}, states)
	f.issue(c, workload(1))
	f.advance(plan.DefaultSigningGrace + plan.DefaultX509SVIDTTL)
	require.Len(t, f.list(home), 2, "the old ones are gone when all that they signed has expired")
	require.Len(t, f.bundle(home).X509Authorities(), 1)
}

func ids(list []*ententev1.Authority) (ids []string) {
	for _, a := range list {
		ids = append(ids, a.GetId())
	}
	return ids
}

func requireModes(t *testing.T, dir string) {
	t.Helper()
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	require.EventuallyWithT(t, func(c *assert.CollectT) { // the member may be writing one of them
		entries, err := os.ReadDir(dir)
		require.NoError(c, err)
		require.NotEmpty(c, entries)
		for _, e := range entries {
			info, err := e.Info()
			require.NoError(c, err)
			require.Equal(c, os.FileMode(0o600), info.Mode().Perm(), e.Name())
			kept := strings.HasSuffix(e.Name(), ".pem") || e.Name() == "own-svids.secret"
			require.True(c, kept, "%s was left behind", e.Name())
		}
	}, time.Minute, time.Millisecond)
}

// TestRemovedMember: the leader retires the authorities of a removed member, and they leave when everything that they
// signed has expired.
func TestRemovedMember(t *testing.T) {
	f := newThree(t, nil)
	f.advance(plan.HintsBeforeUse * plan.DefaultRefreshHint)
	removed := f.nodes[2]
	alive := f.issue(removed, workload(1))
	if removed.store.IsLeader() {
		// Leadership of the store stays where it is; only the manager is gone.
		removed = f.nodes[1]
		alive = f.issue(removed, workload(1))
	}
	f.remove(removed)
	f.settle()
	of := func() (states []string) {
		for _, a := range f.list(home) {
			if a.GetMember() == removed.id {
				states = append(states, a.GetState().String())
				require.Equal(t, "It stays in the bundle until all that it can have signed has expired.",
					a.GetWaitsFor())
			}
		}
		return states
	}
	require.Equal(t, []string{"AUTHORITY_STATE_RETIRING", "AUTHORITY_STATE_RETIRING"}, of())
	f.advance(plan.DefaultX509SVIDTTL - 5*time.Second)
	require.NoError(t, alive[0].verify(f.bundle(home), f.now()))
	f.advance(plan.DefaultSigningGrace + plan.ClockTolerance + time.Minute)
	require.Empty(t, of())
	require.Len(t, f.bundle(home).X509Authorities(), 2)
	require.Len(t, f.bundle(home).JWTAuthorities(), 2)
}

// TestWrongClock: a member whose clock is wrong neither signs nor changes anything by it.
func TestWrongClock(t *testing.T) {
	f, c := newSingle(t, nil)
	before := ids(f.list(home))
	c.set(func() { c.insane = true })
	f.mu.Lock()
	f.ahead = 100 * time.Hour
	f.mu.Unlock()
	f.wake()
	next, err := c.reconciler.reconcileOwn(context.Background())
	require.NoError(t, err)
	require.Equal(t, clock.CheckInterval, next.Sub(f.now()))
	next, err = c.reconciler.reconcileLost(context.Background())
	require.NoError(t, err)
	require.Equal(t, clock.CheckInterval, next.Sub(f.now()))
	require.Equal(t, before, ids(f.list(home)))
	require.EqualError(t, c.issuer.CanSign(), "this member's clock is not known to be that of the others")
}

func TestConfig(t *testing.T) {
	_, c := newSingle(t, nil)
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no store": {func(c *Config) { c.Store = nil }, "authority: Store, Contact, Conn and Audit are required"},
		"no home": {
			func(c *Config) { c.Home = spiffeid.TrustDomain{} }, "authority: the home trust domain is required",
		},
		"no folder": {func(c *Config) { c.KeyDir = "" }, "authority: a key store or a key folder is required"},
		"member":    {func(c *Config) { c.Member = "a b" }, `member "a b" cannot be named by a SPIFFE ID`},
		"hints too long": {
			func(c *Config) { c.Defaults.RefreshHint = 4 * time.Hour },
			"a new authority has to be known for 12h0m0s (3 times refresh_hint) before it signs, but half of ca_ttl " +
				"less the longest SVID lifetime is 11h0m0s; raise ca_ttl (24h0m0s), or lower refresh_hint (4h0m0s) " +
				"or the SVID lifetime (1h0m0s)",
		},
		"root too short": {
			func(c *Config) { c.RootTTL = 25 * time.Hour },
			"root_ttl is 25h0m0s and ca_ttl 24h0m0s; a root has to live for 4 times as long as what it signs",
		},
		"negative grace": {func(c *Config) { c.SigningGrace = -1 }, "it cannot be negative"},
		"readable folder": {
			func(c *Config) { c.KeyDir = readable(t) },
			"so that others can reach the private keys in it; run chmod 0700 ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			config := c.config
			config.Registerer, config.Upstream = nil, nil
			test.change(&config)
			_, err := New(config)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func readable(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.Mkdir(dir, 0o755))
	return dir
}
