package authority

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/raftstore"
)

// registrar is an upstream with several roots. It lists some of them and signs below one.
type registrar struct {
	roots map[string]*upstream.SelfSigned

	mu      sync.Mutex
	certs   map[string]*x509.Certificate
	listed  []string
	signs   string
	changed chan struct{}
}

func newRegistrar(t *testing.T, names ...string) *registrar {
	t.Helper()
	r := &registrar{
		roots: map[string]*upstream.SelfSigned{}, certs: map[string]*x509.Certificate{}, signs: names[0],
		listed: names[:1], changed: make(chan struct{}),
	}
	for _, name := range names {
		store, err := keys.OpenFolder(t.TempDir() + "/" + name)
		require.NoError(t, err)
		r.roots[name] = upstream.NewSelfSigned(store, plan.DefaultRootTTL)
		key, err := keys.Generate()
		require.NoError(t, err)
		der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{}, key)
		require.NoError(t, err)
		csr, err := x509.ParseCertificateRequest(der)
		require.NoError(t, err)
		signed, err := r.roots[name].SignCA(t.Context(),
			upstream.Request{TrustDomain: home, CSR: csr, Now: time.Now(), TTL: time.Hour})
		require.NoError(t, err)
		r.certs[name] = signed.Anchors[0]
	}
	return r
}

func (r *registrar) list(signs string, listed ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signs, r.listed = signs, listed
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *registrar) Anchors(td spiffeid.TrustDomain) ([]*x509.Certificate, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*x509.Certificate
	if td == home {
		for _, name := range r.listed {
			out = append(out, r.certs[name])
		}
	}
	return out, r.changed
}

func (r *registrar) SignCA(ctx context.Context, request upstream.Request) (*upstream.Signed, error) {
	r.mu.Lock()
	signs := r.signs
	r.mu.Unlock()
	request.Refused, request.NewAnchor = nil, false
	signed, err := r.roots[signs].SignCA(ctx, request)
	if err != nil {
		return nil, err
	}
	listed, _ := r.Anchors(home)
	for _, c := range listed {
		if !c.Equal(signed.Anchors[0]) {
			signed.Anchors = append(signed.Anchors, c)
		}
	}
	return signed, nil
}

func (r *registrar) Revoke(context.Context, spiffeid.TrustDomain, *x509.Certificate) error {
	return nil
}
func (r *registrar) Prune(func(*x509.Certificate) bool) error { return nil }

func (r *registrar) id(name string) string { return svid.AnchorID(r.certs[name]) }

// in returns the names of the roots in the bundle.
func (r *registrar) in(f *fleet) string {
	var names []string
	for _, c := range f.bundle(home).X509Authorities() {
		for name, known := range r.certs {
			if known.Equal(c) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// audited returns the details of the audit lines for an anchor.
func (r *registrar) audited(f *fleet, action, name string) (details []string) {
	for _, c := range f.nodes {
		for _, e := range c.audit.about(action) {
			if strings.Contains(e.Detail, r.id(name)) {
				detail, _, _ := strings.Cut(e.Detail, ";")
				details = append(details, detail)
			}
		}
	}
	return details
}

// below returns the names of the roots above authorities, with their states.
func (r *registrar) below(f *fleet) string {
	var out []string
	for _, a := range f.list(home) {
		for name := range r.certs {
			if a.GetKeyId() == r.id(name) {
				out = append(
					out,
					fmt.Sprintf("%s:%s", name,
						strings.ToLower(strings.TrimPrefix(a.GetState().String(), "AUTHORITY_STATE_"))),
				)
			}
		}
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " ")
}

// TestARootIsReplaced: a new anchor is published when it is listed, long before anything is signed below it. The old
// one leaves when nothing below it is alive. Everything that is signed meanwhile verifies at all times.
func TestARootIsReplaced(t *testing.T) {
	r := newRegistrar(t, "old", "new")
	f := allSign(t, func(c *Config) { c.Upstream = r })
	require.Equal(t, "old", r.in(f))

	r.list("new", "new", "old") // another default issuer; the old one is there still
	f.settle()
	require.Equal(t, "new old", r.in(f), "it is published before anything is signed below it")
	require.Equal(t, []string{"x509 anchor " + r.id("new") + ": it is new in the upstream"},
		r.audited(f, "publish anchor", "new"))
	require.Equal(t, "old:active", r.below(f))
	f.advance(plan.HintsBeforeUse * plan.DefaultRefreshHint)

	alive := f.issue(f.nodes[0], workload(1))[0]
	_, err := f.nodes[1].AuthorityService().
		RotateAuthorities(t.Context(), &ententev1.RotateAuthoritiesRequest{TrustDomain: home.Name()})
	require.NoError(t, err)
	f.settle()
	require.Contains(t, r.below(f), "new:active", "nothing to wait for: the anchor has long been known")
	require.NoError(t, alive.verify(f.bundle(home), f.now()))
	require.NoError(t, f.issue(f.nodes[0], workload(1))[0].verify(f.bundle(home), f.now()))

	r.list("new", "new")
	f.settle()
	require.Equal(t, "new old", r.in(f), "what was signed below the old one is alive")
	// The upstream no longer lists it, and what was signed below it ends.
	require.Eventually(t, func() bool { f.advance(10 * time.Minute); return r.in(f) == "new" }, testTimeout,
		time.Millisecond)
	require.ErrorContains(t, alive.verify(f.bundle(home), f.now()), "certificate has expired")
	require.NotContains(t, r.below(f), "old")
	require.Len(t, r.audited(f, "unlist anchor", "old"), 1)
	require.Len(t, r.audited(f, "drop anchor", "old"), 1)
}

// TestAnAuthorityWaitsForItsAnchor: an authority below an anchor that was just published waits until every reader can
// know the anchor, and until all peers have acknowledged the version that published it.
func TestAnAuthorityWaitsForItsAnchor(t *testing.T) {
	r := newRegistrar(t, "old", "new")
	f := allSign(t, func(c *Config) { c.Upstream = r })
	r.list("new", "new", "old")
	f.settle()
	published, sequence := f.now(), sequenceOf(f.bundle(home))
	f.advance(time.Minute)
	_, err := f.nodes[1].AuthorityService().
		RotateAuthorities(t.Context(), &ententev1.RotateAuthoritiesRequest{TrustDomain: home.Name()})
	require.NoError(t, err)
	f.settle()
	require.Equal(t, "new:prepared old:active", r.below(f))
	rows, err := table.ListAuthorities(f.nodes[0].store.View(), home.Name())
	require.NoError(t, err)
	for _, row := range rows {
		if a := table.AuthorityOf(row); a.Kind == plan.X509 && a.State == plan.Prepared {
			require.WithinDuration(t, published.Add(plan.HintsBeforeUse*plan.DefaultRefreshHint), a.Ready, 0,
				"the anchor's, not a minute later")
			require.Equal(t, sequence, a.Published)
		}
	}
}

// TestAnchorsOutliveARestore: the current bundle verifies what is signed now, whatever the snapshot contains. A deleted
// domain leaves no anchors.
func TestAnchorsOutliveARestore(t *testing.T) {
	r := newRegistrar(t, "old", "new")
	f, c := newSingle(t, func(config *Config) { config.Upstream = r })
	var snapshot bytes.Buffer
	_, err := c.store.Snapshots().Save(t.Context(), &snapshot)
	require.NoError(t, err)
	r.list("old", "old", "new")
	f.settle()
	require.Equal(t, "new old", r.in(f))
	require.NoError(t, testutil.GatherAndCompare(c.registry, strings.NewReader(`
# HELP entente_authority_anchors Anchors of a hosted domain apart from authorities: of its `+
		`upstream, published or pending until an operator approves them, and the next roots of members, which `+
		`nothing is below yet (next).
# TYPE entente_authority_anchors gauge
entente_authority_anchors{state="pending",trust_domain="eu.example.org"} 0
entente_authority_anchors{state="published",trust_domain="eu.example.org"} 2
`), "entente_authority_anchors"))
	f.halt(c) // so that no member publishes it again
	_, err = c.store.Snapshots().Restore(t.Context(), bytes.NewReader(snapshot.Bytes()))
	require.NoError(t, err)
	require.Equal(t, "new old", r.in(f))

	_, err = c.store.Update(t.Context(),
		func(tx *raftstore.Tx) error { return table.DeleteUpstreamAnchors(tx, home.Name()) })
	require.NoError(t, err)
	left, err := table.ListUpstreamAnchors(c.store.View(), home.Name())
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestAnAnchorWaitsForApproval: before an operator approves it, an anchor is not in the bundle and nothing is signed
// below it. The current authorities stay active.
func TestAnAnchorWaitsForApproval(t *testing.T) {
	r := newRegistrar(t, "old", "new", "bad")
	f := allSign(t, func(c *Config) { c.Upstream, c.AnchorApproval = r, true })
	require.Equal(t, "old", r.in(f), "the first needs no approval")
	service := f.nodes[1].AuthorityService()

	r.list("new", "new", "old", "bad")
	f.settle()
	require.Equal(t, "old", r.in(f))
	listed, err := service.ListAnchors(t.Context(), &ententev1.ListAnchorsRequest{})
	require.NoError(t, err)
	states := map[string]ententev1.AnchorState{}
	for _, a := range listed.GetAnchors() {
		if a.GetTrustDomain() == home.Name() {
			states[a.GetKeyId()] = a.GetState()
		}
	}
	require.Equal(t, map[string]ententev1.AnchorState{
		r.id("old"): ententev1.AnchorState_ANCHOR_STATE_PUBLISHED,
		r.id("new"): ententev1.AnchorState_ANCHOR_STATE_PENDING,
		r.id("bad"): ententev1.AnchorState_ANCHOR_STATE_PENDING,
	}, states)
	err = f.nodes[0].anchors.Admit(t.Context(), home, r.certs["new"])
	require.ErrorContains(t, err, "the anchor waits for approval")
	require.ErrorContains(t, err, "entente authority approve "+r.id("new"))

	_, err = service.ApproveAnchor(t.Context(),
		&ententev1.ApproveAnchorRequest{TrustDomain: home.Name(), Anchor: "beef"})
	require.ErrorContains(t, err, "entente authority anchors")
	approved, err := service.ApproveAnchor(t.Context(),
		&ententev1.ApproveAnchorRequest{TrustDomain: home.Name(), Anchor: strings.ToUpper(r.id("new"))})
	require.NoError(t, err)
	require.Equal(t, ententev1.AnchorState_ANCHOR_STATE_PUBLISHED, approved.GetAnchor().GetState())
	require.Equal(t, "new old", r.in(f))
	_, err = service.ApproveAnchor(t.Context(),
		&ententev1.ApproveAnchorRequest{TrustDomain: home.Name(), Anchor: r.id("new")})
	require.ErrorContains(t, err, "in the bundle already")

	// An unexpected one can be refused for good.
	_, err = service.RevokeAuthority(
		t.Context(),
		revokeAnchorRequest(r.id("bad")),
	)
	require.NoError(t, err)
	f.settle()
	require.Equal(t, "new old", r.in(f))
	_, err = service.ApproveAnchor(t.Context(),
		&ententev1.ApproveAnchorRequest{TrustDomain: home.Name(), Anchor: r.id("bad")})
	require.ErrorContains(t, err, "has no anchor")
}
