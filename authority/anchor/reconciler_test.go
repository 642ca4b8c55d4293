package anchor

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access/audit"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/internal/clock"
	"github.com/ententehq/entente/authority/internal/journal"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

var home = spiffeid.RequireTrustDomainFromString("eu.example.org")

// room has the anchors of one domain whose upstream lists some of a, b and c.
type room struct {
	*Reconciler
	t      *testing.T
	now    time.Time
	sane   func() bool
	full   bool // the disk of the audit log is full
	certs  map[string]*x509.Certificate
	listed []string
}

// Anchors implements [upstream.AnchorSource].
func (r *room) Anchors(spiffeid.TrustDomain) (out []*x509.Certificate, changed <-chan struct{}) {
	for _, name := range r.listed {
		out = append(out, r.certs[name])
	}
	return out, nil
}

// Record implements [audit.Recorder].
func (r *room) Record(audit.Event) error {
	if r.full {
		return errors.New("no space left on device")
	}
	return nil
}

func newRoom(t *testing.T, approval bool) *room {
	t.Helper()
	store := raftstoretest.New(t)
	r := &room{
		t: t, now: time.Now().Truncate(time.Second), certs: map[string]*x509.Certificate{},
		sane: func() bool { return true },
	}
	for _, name := range []string{"a", "b", "c"} {
		key, err := keys.Generate()
		require.NoError(t, err)
		template, err := svid.CATemplate(home, key.Public(), name, r.now, r.now.Add(time.Hour), 1)
		require.NoError(t, err)
		r.certs[name], err = svid.SignCertificate(template, template, key.Public(), key, svid.LintCA(home))
		require.NoError(t, err)
	}
	forced := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "forced"}, []string{"trust_domain", "kind"})
	r.Reconciler = &Reconciler{
		Store: store, Member: store.MemberID(), Source: r, Approval: approval,
		Clock: clock.Clock{Now: func() time.Time { return r.now }, Sane: func() bool { return r.sane() }},
		Publisher: &publish.Publisher{
			Member: store.MemberID(), Keys: keys.NewMemory(),
			Alive: func(raftstore.Reader) ([]string, error) { return []string{store.MemberID()}, nil },
		},
		Journal: &journal.Journal{Store: store, Audit: r, Log: hclog.NewNullLogger(), Forced: forced},
	}
	domain := &statev1.Domain{TrustDomain: home.Name()}
	table.SetSettings(domain, plan.Settings{
		RefreshHint: time.Minute, X509SVIDTTL: plan.DefaultX509SVIDTTL, JWTSVIDTTL: plan.DefaultJWTSVIDTTL,
		CATTL: plan.DefaultCATTL,
	})
	r.update(func(tx *raftstore.Tx) error { return table.Domains.Put(tx, home.Name(), domain) })
	return r
}

func (r *room) update(fn func(tx *raftstore.Tx) error) {
	r.t.Helper()
	_, err := r.Store.Update(r.t.Context(), fn)
	require.NoError(r.t, err)
}

func (r *room) domain() *statev1.Domain {
	r.t.Helper()
	row, found, err := table.Domains.Get(r.Store.View(), home.Name())
	require.NoError(r.t, err)
	require.True(r.t, found)
	return row.Value
}

// list changes what the upstream lists, and reconciles.
func (r *room) list(names ...string) {
	r.t.Helper()
	r.listed = names
	r.reconcile()
}

// reconcile updates the anchors until there is nothing to do, and returns the time of the next run.
func (r *room) reconcile() time.Time {
	r.t.Helper()
	for range 3 {
		before := r.Store.View().Revision()
		next, err := r.Reconcile(r.t.Context())
		require.NoError(r.t, err)
		if r.Store.View().Revision() == before {
			return next
		}
	}
	r.t.Fatal("the anchors do not settle")
	return plan.Never
}

// begin adds an authority below an anchor, and reports whether that is allowed.
func (r *room) begin(name string) (allowed bool) {
	r.t.Helper()
	row := &statev1.Authority{
		Id: "below-" + name, TrustDomain: home.Name(), Kind: statev1.AuthorityKind(plan.X509), UpstreamAnchor: true,
		Anchors: [][]byte{r.certs[name].Raw},
	}
	r.update(func(tx *raftstore.Tx) error {
		steps, ok, err := r.PublishFirst(tx, r.domain(), row, r.now)
		if allowed = ok; err != nil || !ok {
			return err
		}
		if err := table.Authorities.Put(tx, table.AuthorityKey(home.Name(), row.GetId()), row); err != nil {
			return err
		}
		_, err = r.Publisher.Finish(tx, r.domain(), steps, r.now)
		return err
	})
	return allowed
}

// end removes the authority below an anchor.
func (r *room) end(name string) {
	r.t.Helper()
	r.update(func(tx *raftstore.Tx) error {
		return table.Authorities.Delete(tx, table.AuthorityKey(home.Name(), "below-"+name))
	})
}

// state returns the anchors as an operator sees them: their names, states and details, and "|" before what the bundle
// holds.
func (r *room) state() string {
	r.t.Helper()
	listed, err := List(r.Store.View(), r.domain(), r.now)
	require.NoError(r.t, err)
	var out, held []string
	for _, a := range listed {
		line := r.name(a.GetKeyId()) + " " +
			strings.ToLower(strings.TrimPrefix(a.GetState().String(), "ANCHOR_STATE_"))
		if n := a.GetAuthorities(); n > 0 {
			line += fmt.Sprintf(" above %d", n)
		}
		if a.GetDetail() != "" {
			line += ": " + a.GetDetail()
		}
		out = append(out, line)
	}
	b, err := publish.HostedBundle(r.Store.View(), home.Name())
	require.NoError(r.t, err)
	if b != nil {
		for _, cert := range b.X509Authorities() {
			held = append(held, r.name(svid.AnchorID(cert)))
		}
	}
	slices.Sort(out)
	slices.Sort(held)
	return strings.Join(out, "\n") + "\n| " + strings.Join(held, " ")
}

func (r *room) name(id string) string {
	for name, cert := range r.certs {
		if svid.AnchorID(cert) == id {
			return name
		}
	}
	return id
}

const (
	early    = "Not every reader of the bundle may know it yet."
	pending  = "It waits for approval ('entente authority approve'); nothing is signed below it."
	unlisted = "The upstream no longer lists it; it stays until everything that was signed below it has expired."
	leaving  = "The upstream no longer lists it, and nothing is below it; it will leave the bundle within minutes."
)

// TestAnAnchorComesAndGoes follows the anchors through a change of roots, one step after the other.
func TestAnAnchorComesAndGoes(t *testing.T) {
	r := newRoom(t, false)
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"the first waits for an authority", func() { r.list("a") }, "\n| "},
		{
			"it is published with the authority", func() { require.True(t, r.begin("a")) },
			"a published above 1: " + early + "\n| a",
		},
		{
			"readers know it after three hints", func() { r.now = r.now.Add(3 * time.Minute) },
			"a published above 1\n| a",
		},
		{
			"a new one is published before it signs", func() { r.list("a", "b") },
			"a published above 1\nb published: " + early + "\n| a b",
		},
		{
			"the old one is no longer listed", func() { r.list("b") },
			"a published above 1: " + unlisted + "\nb published: " + early + "\n| a b",
		},
		{
			"it stays beyond the grace, for what is below it",
			func() { r.now = r.now.Add(6 * time.Minute); r.reconcile() },
			"a published above 1: " + unlisted + "\nb published\n| a b",
		},
		{
			"the list is lost: nothing is concluded", func() { r.list() },
			"a published above 1: " + unlisted + "\nb published\n| a b",
		},
		{
			"it is listed again", func() { r.list("a", "b") },
			"a published above 1\nb published\n| a b",
		},
		{
			"nothing is below it any more", func() { r.list("b"); r.end("a") },
			"a published: " + leaving + "\nb published\n| a b",
		},
		{
			"another member can be signing below it", func() {
				next := r.reconcile()
				require.Equal(t, 5*time.Minute, next.Sub(r.now), "it looks again when the grace is over")
				r.now = next.Add(-time.Second)
				r.reconcile()
			},
			"a published: " + leaving + "\nb published\n| a b",
		},
		{"it leaves", func() { r.now = r.now.Add(time.Second); r.reconcile() }, "b published\n| b"},
		{"nothing is added below it", func() { require.False(t, r.begin("a")) }, "b published\n| b"},
		{
			"the authority comes below the new one", func() { require.True(t, r.begin("b")) },
			"b published above 1\n| b",
		},
	} {
		step.do()
		require.Equal(t, step.want, r.state(), step.name)
	}
}

// TestApproval: a new anchor waits for an operator, who names it by its key ID or its SHA-256.
func TestApproval(t *testing.T) {
	r := newRoom(t, true)
	r.list("a")
	require.True(t, r.begin("a"), "the first is the one that the operator configured")
	r.now = r.now.Add(3 * time.Minute)
	r.list("a", "b", "c")
	require.Equal(t, "a published above 1\nb pending: "+pending+"\nc pending: "+pending+"\n| a", r.state())
	require.False(t, r.begin("b"))

	approve := func(wanted string) (approved *x509.Certificate, refusal error) {
		_, err := r.Store.Update(t.Context(), func(tx *raftstore.Tx) (err error) {
			approved, err = r.Approve(tx, r.domain(), wanted, r.now)
			return err
		})
		return approved, err
	}
	b := svid.AnchorID(r.certs["b"])
	approved, err := approve(b)
	require.NoError(t, err)
	require.True(t, r.certs["b"].Equal(approved))
	require.Equal(t, "a published above 1\nb published: "+early+"\nc pending: "+pending+"\n| a b", r.state())
	require.True(t, r.begin("b"))

	var refusal plan.Refusal
	_, err = approve(b)
	require.EqualError(t, err, "anchor "+b+" of eu.example.org is in the bundle already")
	require.ErrorAs(t, err, &refusal)
	_, err = approve("beef")
	require.EqualError(t, err, `there is no anchor: the upstream of eu.example.org has no anchor "beef" that waits `+
		"for approval; 'entente authority anchors eu.example.org' lists its anchors")
	require.ErrorIs(t, err, plan.ErrNoAnchor)
	require.ErrorAs(t, err, &refusal)

	sum := sha256.Sum256(r.certs["c"].Raw)
	_, err = approve(hex.EncodeToString(sum[:]))
	require.NoError(t, err)
	require.Contains(t, r.state(), "\n| a b c")
}

// TestApprovalEnds: an anchor that waits is published when anchors no longer need approval.
func TestApprovalEnds(t *testing.T) {
	r := newRoom(t, true)
	r.list("a")
	require.True(t, r.begin("a"))
	r.list("a", "b")
	require.Contains(t, r.state(), "\n| a")
	r.Approval = false
	r.reconcile()
	require.Contains(t, r.state(), "\n| a b")
}

// TestAdmit: an authority below a new anchor waits until the anchor is in the bundle.
func TestAdmit(t *testing.T) {
	id := func(r *room, name string) string { return svid.AnchorID(r.certs[name]) }
	for name, c := range map[string]struct {
		approval bool
		adjust   func(r *room)
		want     func(r *room) string
		state    string
	}{
		"one that is published": {
			adjust: func(r *room) { r.list("a", "b") },
			state:  "| a b",
		},
		"one that is listed since a moment ago": {
			adjust: func(r *room) { r.listed = []string{"a", "b"} },
			state:  "| a b",
		},
		"one that waits for approval": {
			approval: true,
			adjust:   func(r *room) { r.listed = []string{"a", "b"} },
			want: func(r *room) string {
				return "the upstream signs below the new anchor " + id(r, "b") + " (" + r.certs["b"].Subject.String() +
					"); if it is expected, run 'entente authority approve " + id(r, "b") + " --domain eu.example.org'" +
					": the anchor waits for approval"
			},
			state: "| a",
		},
		"one that is not listed": {
			adjust: func(*room) {},
			want: func(r *room) string {
				return "the upstream signs below the anchor " + id(r, "b") + " (" + r.certs["b"].Subject.String() +
					"), which it does not list among its anchors"
			},
			state: "| a",
		},
		"one that was revoked": {
			adjust: func(r *room) {
				r.list("a", "b")
				r.update(func(tx *raftstore.Tx) error {
					return table.PutRevokedAnchor(tx, home.Name(), r.certs["b"], r.now)
				})
			},
			want: func(r *room) string {
				return "the upstream signs below the anchor " + id(r, "b") + ", which was revoked; make an issuer " +
					"below another one its default"
			},
		},
		"one of the member's own": {
			adjust: func(r *room) { r.Source = nil },
			state:  "| a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, c.approval)
			r.list("a")
			require.True(t, r.begin("a"))
			c.adjust(r)
			err := r.Admit(t.Context(), home, r.certs["b"])
			if c.want == nil {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, c.want(r))
			}
			require.Contains(t, r.state(), c.state)
		})
	}
	t.Run("the first of all", func(t *testing.T) {
		r := newRoom(t, true)
		require.NoError(t, r.Admit(t.Context(), home, r.certs["b"]), "it is published with the authority")
		require.Equal(t, "\n| ", r.state())
	})
}

// TestRefused: nothing is signed below an anchor that was revoked, or that waits for approval.
func TestRefused(t *testing.T) {
	for _, approval := range []bool{false, true} {
		r := newRoom(t, approval)
		refused := func() (names string) {
			is, err := r.Refused(r.Store.View(), home.Name())
			require.NoError(t, err)
			for _, name := range []string{"a", "b", "c"} {
				if is(r.certs[name]) {
					names += name
				}
			}
			return names
		}
		require.Empty(t, refused(), "the first anchor needs no approval")
		r.list("a")
		require.True(t, r.begin("a"))
		r.list("a", "b")
		want := map[bool]string{false: "", true: "bc"}[approval]
		require.Equal(t, want, refused())
		r.update(func(tx *raftstore.Tx) error {
			return table.PutRevokedAnchor(tx, home.Name(), r.certs["c"], r.now)
		})
		require.Equal(t, map[bool]string{false: "c", true: "bc"}[approval], refused())
	}
}

// TestNothingChanges: a member whose clock is not known to be right, or that cannot audit, changes no anchor.
func TestNothingChanges(t *testing.T) {
	prepare := func(t *testing.T) (r *room, state string) {
		r = newRoom(t, false)
		r.list("a")
		require.True(t, r.begin("a"))
		r.listed = []string{"a", "b"}
		return r, r.state()
	}
	t.Run("the clock is wrong", func(t *testing.T) {
		r, before := prepare(t)
		r.sane = func() bool { return false }
		next, err := r.Reconcile(t.Context())
		require.NoError(t, err)
		require.Equal(t, r.now.Add(clock.CheckInterval), next)
		require.Equal(t, before, r.state())
	})
	t.Run("the clock goes wrong", func(t *testing.T) {
		r, before := prepare(t)
		checks := 0
		r.sane = func() bool { checks++; return checks == 1 }
		_, err := r.Reconcile(t.Context())
		require.EqualError(t, err, "anchors of eu.example.org: this member's clock is not known to be that of the "+
			"others; nothing was changed")
		require.Equal(t, before, r.state())
	})
	t.Run("the audit log is full", func(t *testing.T) {
		r, before := prepare(t)
		r.full = true
		_, err := r.Reconcile(t.Context())
		require.ErrorIs(t, err, audit.ErrUnaudited)
		require.Equal(t, before, r.state())
		r.full = false
		r.reconcile()
		require.Contains(t, r.state(), "| a b", "it is done when it can be audited")
	})
}
