package authority

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/internal/clock"
	"github.com/ententehq/entente/authority/issue"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/raftstore"
)

// watch is a stream of WatchAuthorities without a network.
type watch struct {
	grpc.ServerStream
	ctx  context.Context
	sent chan *ententev1.WatchAuthoritiesResponse
}

func (w watch) Context() context.Context { return w.ctx }

func (w watch) Send(r *ententev1.WatchAuthoritiesResponse) error {
	w.sent <- r
	return nil
}

// watch starts a watch of the domains at a member, or of all domains, and returns its messages.
func (f *fleet) watch(c *node, domains ...string) <-chan *ententev1.WatchAuthoritiesResponse {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := watch{ctx: ctx, sent: make(chan *ententev1.WatchAuthoritiesResponse, 100)}
	ended := make(chan error, 1)
	go func() {
		ended <- c.SVIDService().WatchAuthorities(&ententev1.WatchAuthoritiesRequest{TrustDomains: domains}, w)
	}()
	f.t.Cleanup(func() {
		cancel()
		require.Equal(f.t, codes.Canceled, status.Code(<-ended))
	})
	return w.sent
}

// within returns the next message of a watch.
func (f *fleet) within(w <-chan *ententev1.WatchAuthoritiesResponse) []*ententev1.DistrustedAuthority {
	f.t.Helper()
	select {
	case r := <-w:
		return r.GetDistrusted()
	case <-time.After(time.Second):
		f.t.Fatal("nothing came within a second")
		return nil
	}
}

// active returns the active authority of a member.
func (f *fleet) active(member string, kind ententev1.AuthorityKind) *ententev1.Authority {
	f.t.Helper()
	for _, a := range f.list(home) {
		if a.GetMember() == member && a.GetKind() == kind &&
			a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE {
			return a
		}
	}
	f.t.Fatalf("member %s has no active authority", member)
	return nil
}

func (f *fleet) state(id string) ententev1.AuthorityState {
	f.t.Helper()
	for _, a := range f.list(home) {
		if a.GetId() == id {
			return a.GetState()
		}
	}
	return ententev1.AuthorityState_AUTHORITY_STATE_UNSPECIFIED
}

// allSign returns a fleet of three members that all sign.
func allSign(t *testing.T, adjust func(*Config)) *fleet {
	f := newThree(t, adjust)
	f.advance(plan.HintsBeforeUse * plan.DefaultRefreshHint)
	for _, c := range f.nodes {
		f.active(c.id, ententev1.AuthorityKind_AUTHORITY_KIND_X509)
	}
	return f
}

// TestTaint: after the response no member signs with the authority, and watches on every member are notified. What it
// signed still verifies, and the member's own SVIDs are signed by another authority at once.
func TestTaint(t *testing.T) {
	f := allSign(t, nil)
	ctx := context.Background()
	c, other := f.nodes[0], f.nodes[2]
	here, there, of := f.watch(c), f.watch(other, home.Name()), f.watch(other, shop.Name())
	require.Empty(t, f.within(here))
	require.Empty(t, f.within(there))
	require.Empty(t, f.within(of))

	id, err := svid.MemberID(home, c.id)
	require.NoError(t, err)
	x, j := f.active(c.id, ententev1.AuthorityKind_AUTHORITY_KIND_X509), f.active(c.id,
		ententev1.AuthorityKind_AUTHORITY_KIND_JWT)
	f.advance(30 * time.Minute) // own SVIDs are of this member's own authority now
	own := f.awaitOwn(c, id, func(s *issue.OwnSVID) bool { return s.Authority == x.GetId() })
	alive := f.issue(c, workload(1))
	leaf, err := c.SVIDService().IssueX509SVID(caller, x509Request(t, workload(1)))
	require.NoError(t, err)
	before := f.bundle(home)

	done, err := other.AuthorityService().TaintAuthority(ctx, taintRequest(x.GetId()))
	require.NoError(t, err)
	require.Len(t, done.GetAuthorities(), 1)
	require.Equal(t, ententev1.AuthorityState_AUTHORITY_STATE_TAINTED, done.GetAuthorities()[0].GetState())
	require.Equal(t, "It no longer signs. "+renewText, done.GetWarnings()[0])
	for _, w := range []<-chan *ententev1.WatchAuthoritiesResponse{here, there} {
		got := f.within(w)
		require.Len(t, got, 1)
		require.Equal(t, x.GetId(), got[0].GetId())
		require.Equal(t, ententev1.AuthorityState_AUTHORITY_STATE_TAINTED, got[0].GetState())
		require.Equal(t, hex.EncodeToString(parse(t, leaf.GetCertificates())[0].AuthorityKeyId),
			got[0].GetSubjectKeyId(), "a holder recognizes it by its certificate alone")
	}
	require.NotEqual(t, own.Authority,
		f.awaitOwn(c, id, func(s *issue.OwnSVID) bool { return s.Authority != x.GetId() }).Authority)
	require.Empty(t, c.issuer.State().Domains[home].Signer(plan.X509))
	for range 5 {
		r, err := c.SVIDService().IssueX509SVID(caller, x509Request(t, workload(1)))
		require.NoError(t, err)
		require.NotEqual(t, x.GetId(), r.GetAuthorityId())
	}
	f.settle()
	for _, verified := range alive {
		require.NoError(t, verified.verify(f.bundle(home), f.now()), verified.what)
	}
	require.Equal(t, len(before.X509Authorities())+1, len(f.bundle(home).X509Authorities()),
		"the old root, and one that is not suspect")

	// The other kind, at the member itself.
	_, err = c.AuthorityService().TaintAuthority(ctx, taintRequest(j.GetId()))
	require.NoError(t, err)
	require.Len(t, f.within(here), 2)
	token, err := c.SVIDService().IssueJWTSVID(caller, jwtRequest("db"))
	require.NoError(t, err)
	require.NotEqual(t, j.GetId(), token.GetAuthorityId())

	// It stays so when the member comes back from a restart, and ends when all that it signed has expired.
	f.halt(c)
	f.start(c)
	f.settle()
	require.Equal(t, ententev1.AuthorityState_AUTHORITY_STATE_TAINTED, f.state(x.GetId()))
	require.Empty(t, c.issuer.State().Domains[home].Signer(plan.X509))
	f.advance(plan.DefaultSigningGrace + plan.DefaultX509SVIDTTL)
	require.Zero(t, f.state(x.GetId()))
	for len(f.within(there)) > 0 { // what has expired is listed no more
	}
	require.Empty(t, of, "a watch of another domain is not notified")
}

// TestRevoke: what verified an authority below a root of its own leaves the bundle in the same transaction, the keys
// are deleted, and what is signed next verifies by the next bundle.
func TestRevoke(t *testing.T) {
	f := allSign(t, nil)
	ctx := context.Background()
	c := f.nodes[0]
	x, j := f.active(c.id, ententev1.AuthorityKind_AUTHORITY_KIND_X509), f.active(c.id,
		ententev1.AuthorityKind_AUTHORITY_KIND_JWT)
	alive := f.issue(c, workload(1))
	before := f.bundle(home)

	done, err := f.nodes[1].AuthorityService().RevokeAuthority(ctx, revokeRequest(x.GetId()))
	require.NoError(t, err)
	require.Equal(t, ententev1.AuthorityState_AUTHORITY_STATE_REVOKED, done.GetAuthorities()[0].GetState())
	require.Equal(t, []string{
		fmt.Sprintf(
			"What verified it left the bundle with sequence %d. Clients that watch the bundle have that at once; "+
				"those that fetch it, at the refresh hint (5m0s).",
			sequenceOf(before)+1),
		renewText,
	}, done.GetWarnings())
	requireUnverified(t, alive[0].verify(f.bundle(home), f.now()))
	require.NoError(t, alive[1].verify(f.bundle(home), f.now()))
	for _, anchor := range f.bundle(home).X509Authorities() {
		require.NotEqual(t, x.GetKeyId(), svid.AnchorID(anchor))
	}
	_, err = f.nodes[1].AuthorityService().RevokeAuthority(ctx, revokeRequest(j.GetId()))
	require.NoError(t, err)
	requireUnverified(t, alive[1].verify(f.bundle(home), f.now()))
	f.settle()
	require.Eventually(t, func() bool {
		_, errX := c.keys.Signer(x.GetId())
		_, errJ := c.keys.Signer(j.GetId())
		names, err := c.keys.Names(ctx)
		return err == nil && errX != nil && errJ != nil && len(names) == 3
	}, testTimeout, pollInterval, "the keys, and the root, are deleted")

	f.advance(plan.HintsBeforeUse * plan.DefaultRefreshHint)
	require.NotEqual(t, x.GetKeyId(), f.active(c.id, ententev1.AuthorityKind_AUTHORITY_KIND_X509).GetKeyId())
	for _, verified := range f.issue(c, workload(1)) {
		require.NoError(t, verified.verify(f.bundle(home), f.now()), verified.what)
	}

	// A restore does not give it back.
	var snapshot bytes.Buffer
	_, err = c.store.Snapshots().Save(ctx, &snapshot)
	require.NoError(t, err)
	x = f.active(c.id, ententev1.AuthorityKind_AUTHORITY_KIND_X509)
	_, err = c.AuthorityService().RevokeAuthority(ctx, revokeAnchorRequest(x.GetKeyId()))
	require.NoError(t, err)
	_, err = c.store.Snapshots().Restore(ctx, bytes.NewReader(snapshot.Bytes()))
	require.NoError(t, err)
	f.settle()
	require.Equal(t, ententev1.AuthorityState_AUTHORITY_STATE_REVOKED, f.state(x.GetId()))
	for _, anchor := range f.bundle(home).X509Authorities() {
		require.NotEqual(t, x.GetKeyId(), svid.AnchorID(anchor))
	}
}

// TestRevokeTheLast: a domain whose only authorities are revoked signs again at once, below another root.
func TestRevokeTheLast(t *testing.T) {
	f, c := newSingle(t, nil)
	for _, kind := range []ententev1.AuthorityKind{
		ententev1.AuthorityKind_AUTHORITY_KIND_X509, ententev1.AuthorityKind_AUTHORITY_KIND_JWT,
	} {
		done, err := c.AuthorityService().RevokeAuthority(context.Background(), &ententev1.RevokeAuthorityRequest{
			TrustDomain: home.Name(), What: &ententev1.RevokeAuthorityRequest_Id{Id: f.active(c.id, kind).GetId()},
		})
		require.NoError(t, err)
		require.Contains(t, done.GetWarnings()[len(done.GetWarnings())-1],
			"a new one is being prepared and signs as soon as it exists")
		require.GreaterOrEqual(t, uint64(c.issuer.State().Revision), done.GetRevision(),
			"after the response this member signs nothing with it")
	}
	for _, verified := range f.issue(c, workload(1)) { // it does not settle first: the request waits for what it needs
		require.NoError(t, verified.verify(f.bundle(home), f.now()), verified.what)
	}
	id, err := svid.MemberID(home, c.id)
	require.NoError(t, err)
	own := f.awaitOwn(c, id, func(s *issue.OwnSVID) bool {
		return slices.ContainsFunc(c.issuer.State().Domains[home].Authorities, func(a plan.Authority) bool {
			return a.ID == s.Authority && !a.State.Distrusted()
		})
	})
	roots := x509.NewCertPool()
	for _, anchor := range f.bundle(home).X509Authorities() {
		roots.AddCert(anchor)
	}
	intermediates := x509.NewCertPool()
	for _, ca := range parse(t, own.Certificate.Certificate[1:]) {
		intermediates.AddCert(ca)
	}
	_, err = own.Certificate.Leaf.Verify(
		x509.VerifyOptions{
			Roots: roots, Intermediates: intermediates, CurrentTime: f.now(),
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		},
	)
	require.NoError(t, err)
}

// TestActivate: an operator can activate an authority, and the response names the cost.
func TestActivate(t *testing.T) {
	f := allSign(t, nil)
	ctx := context.Background()
	c := f.nodes[1]
	was := f.active(c.id, ententev1.AuthorityKind_AUTHORITY_KIND_JWT)
	prepared, err := c.AuthorityService().PrepareAuthorities(ctx, &ententev1.PrepareAuthoritiesRequest{})
	require.NoError(t, err)
	require.Equal(t, plan.HintsBeforeUse*plan.DefaultRefreshHint, prepared.GetExpectedDuration().AsDuration())
	f.settle()
	var reserve *ententev1.Authority
	for _, a := range f.list(home) {
		if a.GetMember() == c.id && a.GetKind() == ententev1.AuthorityKind_AUTHORITY_KIND_JWT &&
			a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_PREPARED {
			reserve = a
		}
	}
	require.NotNil(t, reserve)
	require.Equal(t,
		"It is held in reserve until half of the life of the one before it has passed, or until an operator "+
			"activates it.",
		reserve.GetWaitsFor())
	activate := func() (*ententev1.ActivateAuthorityResponse, error) {
		return c.AuthorityService().
			ActivateAuthority(ctx, &ententev1.ActivateAuthorityRequest{TrustDomain: home.Name(), Id: reserve.GetId()})
	}
	done, err := activate()
	require.NoError(t, err)
	require.Equal(
		t,
		[]string{
			"Not every reader can know it yet: until " + timeText(
				f.now().Add(plan.HintsBeforeUse*plan.DefaultRefreshHint)) +
				", a reader that has not fetched the bundle since it was published refuses what it signs.",
		},
		done.GetWarnings(),
	)
	require.Len(t, done.GetAuthorities(), 2)
	require.Equal(t, ententev1.AuthorityState_AUTHORITY_STATE_RETIRING, f.state(was.GetId()))
	f.settle()
	token, err := c.SVIDService().IssueJWTSVID(caller, jwtRequest("db"))
	require.NoError(t, err)
	require.Equal(t, reserve.GetId(), token.GetAuthorityId())
	_, err = activate()
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.NotEmpty(t, c.audit.about("activate authority"))
}

// TestAWrongClockChangesNothing: a member whose clock is a day off neither plans nor accepts operator actions, as
// leader or follower, not even in a transaction that began before.
func TestAWrongClockChangesNothing(t *testing.T) {
	f := allSign(t, nil)
	ctx := context.Background()
	before := f.list(home)
	for _, off := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		for _, c := range f.nodes {
			c.set(func() { c.insane, c.skew = true, off })
			f.wake()
			_, err := c.AuthorityService().
				TaintAuthority(ctx, &ententev1.TaintAuthorityRequest{TrustDomain: home.Name(), Id: before[0].GetId()})
			require.Equal(t, codes.FailedPrecondition, status.Code(err))
			require.ErrorContains(t, err,
				"the clock of member "+c.id+" is not known to be that of the others, and it would record a wrong "+
					"time; ask another member")
			_, err = c.store.Update(ctx, func(tx *raftstore.Tx) error {
				_, err := c.executor.carryOut(tx, home.Name(), nil, nil)
				return err
			})
			require.ErrorIs(t, err, clock.ErrUnknown)
			_, err = c.store.Update(ctx, func(tx *raftstore.Tx) error {
				_, err := c.executor.carryOutLost(tx, home.Name())
				return err
			})
			require.ErrorIs(t, err, clock.ErrUnknown)
			_, err = c.SigningService().SignX509SVID(asMember(f.nodes[0].id), signRequest(t, workload(1)))
			require.Equal(t, codes.FailedPrecondition, status.Code(err))
			f.issue(c, workload(1)) // it passes on
			c.set(func() { c.insane, c.skew = false, 0 })
			f.wake()
			f.settle()
			require.Equal(t, ids(before), ids(f.list(home)))
			for i, a := range f.list(home) {
				require.Equal(t, before[i].GetState(), a.GetState())
			}
		}
	}
}
