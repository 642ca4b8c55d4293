package intake

import (
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access/audit"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

const (
	us  = "us.example.org"
	web = "web.example.org"
)

// room has an intake with a relationship with us.example.org, whose endpoint its own bundle verifies.
type room struct {
	*Intake
	t     *testing.T
	store *raftstore.Store
	audit *federationtest.AuditLog
	us    *federationtest.Authority
	now   time.Time
}

func newRoom(t *testing.T) *room {
	t.Helper()
	r := &room{
		t: t, store: raftstoretest.New(t), audit: &federationtest.AuditLog{}, us: federationtest.NewAuthority(t, us),
		now: time.Now().Truncate(time.Second),
	}
	var err error
	r.Intake, err = New(Config{
		Store: r.store, Trust: federationtest.Trust(relationship.TrustSource()), Audit: r.audit,
		MinRefresh: relationship.DefaultMinRefresh, Log: hclog.NewNullLogger(), Now: func() time.Time { return r.now },
	})
	require.NoError(t, err)
	r.relate(us, func(row *statev1.Relationship) {
		row.Profile, row.EndpointSpiffeId = federationtest.SpiffeProfile, r.us.EndpointID().String()
	})
	return r
}

func (r *room) update(fn func(tx *raftstore.Tx) error) {
	r.t.Helper()
	_, err := r.store.Update(r.t.Context(), fn)
	require.NoError(r.t, err)
}

// relate writes a relationship, or changes it as an operator does.
func (r *room) relate(name string, adjust ...func(*statev1.Relationship)) {
	r.t.Helper()
	r.update(func(tx *raftstore.Tx) error {
		row, found, err := relationship.Relationships.Get(tx, name)
		if err != nil {
			return err
		}
		if !found {
			row.Value = &statev1.Relationship{
				TrustDomain: name, Url: "https://" + name, Profile: federationtest.WebProfile,
				CreateTime: timestamppb.New(r.now),
			}
		}
		row.Value.Generation++
		for _, f := range adjust {
			f(row.Value)
		}
		return relationship.Relationships.Put(tx, name, row.Value)
	})
}

// hold stores a bundle without a decision.
func (r *room) hold(b *bundle.Bundle) {
	r.t.Helper()
	r.update(func(tx *raftstore.Tx) error {
		return relationship.ForeignBundles.Put(tx, b.TrustDomain().Name(), b.Row(r.now))
	})
}

func (r *room) basis(name string) Basis {
	r.t.Helper()
	b, err := r.BasisOf(r.store.View(), name)
	require.NoError(r.t, err)
	return b
}

// stored returns the sequence and the times of the stored bundle of us.example.org.
func (r *room) stored() (sequence uint64, changed, retrieved time.Time) {
	r.t.Helper()
	row, found, err := relationship.ForeignBundles.Get(r.store.View(), us)
	require.NoError(r.t, err)
	if !found {
		return 0, changed, retrieved
	}
	b, err := relationship.NewStored(row.Value).Bundle()
	require.NoError(r.t, err)
	sequence, _ = b.Sequence()
	return sequence, row.Value.GetChangeTime().AsTime(), row.Value.GetRetrieveTime().AsTime()
}

func (r *room) row() *statev1.Relationship {
	r.t.Helper()
	row, found, err := relationship.Relationships.Get(r.store.View(), us)
	require.NoError(r.t, err)
	require.True(r.t, found)
	return row.Value
}

// TestKeep: a bundle is stored if it may replace the stored one and nothing of the basis changed since. A refusal
// changes nothing and is audited.
func TestKeep(t *testing.T) {
	for name, c := range map[string]struct {
		next func(r *room) *bundle.Bundle
		// meanwhile happens between the decision and the transaction.
		meanwhile func(r *room)
		want      string
		audited   string
	}{
		"a higher sequence": {
			next:    func(r *room) *bundle.Bundle { return r.us.Rotated(t).Bundle(t, 4) },
			audited: "done",
		},
		"the same again": {
			next:    func(r *room) *bundle.Bundle { return r.us.Bundle(t, 3) },
			audited: "done",
		},
		"a lower sequence": {
			next: func(r *room) *bundle.Bundle { return r.us.Bundle(t, 2) },
			want: "its sequence is lower than that of the stored bundle; if the peer was rebuilt, let it in again " +
				"with `entente federation update DOMAIN --bootstrap FILE --reset-sequence`",
			audited: "failed",
		},
		"other keys under the same sequence": {
			next: func(r *room) *bundle.Bundle { return r.us.Rotated(t).Bundle(t, 3) },
			want: "it holds other keys than the stored bundle under the same sequence; have the peer's operator " +
				"explain it; if the peer was rebuilt, let it in again with `entente federation update DOMAIN " +
				"--bootstrap FILE --reset-sequence`",
			audited: "failed",
		},
		"the bundle of another domain": {
			next:    func(*room) *bundle.Bundle { return federationtest.NewAuthority(t, web).Bundle(t, 9) },
			want:    "the bundle belongs to another trust domain",
			audited: "failed",
		},
		"an authority of another domain": {
			next: func(r *room) *bundle.Bundle {
				return r.us.Bundle(t, 4, federationtest.NewAuthority(t, web))
			},
			want: "it holds an authority that names another trust domain; is it the bundle of that domain? " +
				"(spiffe://web.example.org, in a bundle of us.example.org)",
			audited: "failed",
		},
		"another bundle was stored": {
			next:      func(r *room) *bundle.Bundle { return r.us.Bundle(t, 9) },
			meanwhile: func(r *room) { r.hold(r.us.Bundle(t, 4)) },
			want:      "the relationship or its bundle was changed while the fetch was under way",
			audited:   "failed",
		},
		"an operator changed the relationship": {
			next:      func(r *room) *bundle.Bundle { return r.us.Bundle(t, 9) },
			meanwhile: func(r *room) { r.relate(us) },
			want:      "the relationship or its bundle was changed while the fetch was under way",
			audited:   "failed",
		},
		"an operator suspended it": {
			next: func(r *room) *bundle.Bundle { return r.us.Bundle(t, 9) },
			meanwhile: func(r *room) {
				r.relate(us, func(row *statev1.Relationship) { row.Suspended = true })
			},
			want:    "the relationship was ended or suspended while the fetch was under way",
			audited: "failed",
		},
		"an operator deleted it": {
			next: func(r *room) *bundle.Bundle { return r.us.Bundle(t, 9) },
			meanwhile: func(r *room) {
				r.update(func(tx *raftstore.Tx) error { return relationship.Relationships.Delete(tx, us) })
			},
			want:    "the relationship was ended or suspended while the fetch was under way",
			audited: "failed",
		},
		"another relationship changed": {
			next:      func(r *room) *bundle.Bundle { return r.us.Bundle(t, 4) },
			meanwhile: func(r *room) { r.relate(web) },
			audited:   "done",
		},
		"it cannot be audited": {
			next:      func(r *room) *bundle.Bundle { return r.us.Bundle(t, 4) },
			meanwhile: func(r *room) { r.audit.Fill(true) },
			want: "accept bundle us.example.org: not done, because it cannot be audited: no space left on device; " +
				"make room on the member's disk, or use another member",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			r.hold(r.us.Bundle(t, 3))
			basis, next := r.basis(us), c.next(r)
			if c.meanwhile != nil {
				c.meanwhile(r)
			}
			before, _, _ := r.stored()
			revision := r.store.View().Revision()
			_, err := r.Keep(t.Context(), us, basis, next)
			sequence, _, _ := r.stored()
			if c.want == "" {
				require.NoError(t, err)
				want, _ := next.Sequence()
				require.Equal(t, want, sequence)
			} else {
				require.EqualError(t, err, c.want)
				require.Equal(t, before, sequence)
				require.Equal(t, revision, r.store.View().Revision())
			}
			var lines []string
			if c.audited != "" {
				lines = []string{"accept bundle us.example.org: begun", "accept bundle us.example.org: " + c.audited}
			}
			require.Equal(t, lines, r.audit.Decisions())
		})
	}
}

// TestKeepConfirms: the same keys under another sequence are confirmed, and not a change.
func TestKeepConfirms(t *testing.T) {
	r := newRoom(t)
	first := r.now
	_, err := r.Keep(t.Context(), us, r.basis(us), r.us.Bundle(t, 3))
	require.NoError(t, err)
	require.Equal(t, ententev1.Freshness_FRESHNESS_FRESH, ententev1.Freshness(r.row().GetValidity().GetFreshness()))

	r.now = r.now.Add(time.Minute)
	_, err = r.Keep(t.Context(), us, r.basis(us), r.us.Bundle(t, 4))
	require.NoError(t, err)
	sequence, changed, retrieved := r.stored()
	require.EqualValues(t, 4, sequence)
	require.True(t, first.Equal(changed))
	require.True(t, r.now.Equal(retrieved))

	r.now = r.now.Add(time.Minute)
	_, err = r.Keep(t.Context(), us, r.basis(us), r.us.Rotated(t).Bundle(t, 5))
	require.NoError(t, err)
	_, changed, _ = r.stored()
	require.True(t, r.now.Equal(changed), "other keys are a change")
}

// TestKeepComparesWithHubs: a bundle that hubs contradict is stored, with an alarm that takes no trust away.
func TestKeepComparesWithHubs(t *testing.T) {
	r := newRoom(t)
	other := r.us.Rotated(t).Bundle(t, 3)
	r.update(func(tx *raftstore.Tx) error {
		return relationship.HubBundles.Put(tx, relationship.AttestationKey(us, "hub.example.org"), &statev1.HubBundle{
			TrustDomain: us, Hub: "hub.example.org", Document: other.Marshal(),
		})
	})
	_, err := r.Keep(t.Context(), us, r.basis(us), r.us.Bundle(t, 3))
	require.NoError(t, err)
	require.Equal(t, []string{relationship.AlarmSplitView}, relationship.AlarmsOf(r.row()))
	require.Equal(t, ententev1.Freshness_FRESHNESS_FRESH, ententev1.Freshness(r.row().GetValidity().GetFreshness()))
	require.Equal(t, []string{
		"accept bundle us.example.org: begun", "accept bundle us.example.org: done",
		"raise alarm us.example.org: " + relationship.AlarmSplitView,
	}, r.audit.Decisions())
}

// TestCompare: what a source shows raises an alarm once, and only if it contradicts what was shown before.
func TestCompare(t *testing.T) {
	r := newRoom(t)
	_, err := r.Keep(t.Context(), us, r.basis(us), r.us.Bundle(t, 3))
	require.NoError(t, err)
	other := r.us.Rotated(t)
	for _, step := range []struct {
		name   string
		show   *bundle.Bundle
		alarms int
	}{
		{"the same", r.us.Bundle(t, 3), 0},
		{"a sequence that was never shown", other.Bundle(t, 2), 0},
		{"other keys under one sequence", other.Bundle(t, 3), 1},
		{"the same contradiction again", other.Bundle(t, 3), 1},
	} {
		require.NoError(t, r.CompareBundle(t.Context(), us, step.show, "peer eu-1"), step.name)
		raised := 0
		for _, line := range r.audit.Decisions() {
			if line == "raise alarm us.example.org: "+relationship.AlarmSplitView {
				raised++
			}
		}
		require.Equal(t, step.alarms, raised, step.name)
		require.Len(t, relationship.AlarmsOf(r.row()), step.alarms, step.name)
	}
	require.NoError(t, r.Compare(t.Context(), web, statement.ViewOf(other.Bundle(t, 3), "peer eu-1")),
		"nothing was shown of a domain without a relationship")
}

// TestServingBundle: the bundle of a hosted domain, or of a foreign one in force, serves another domain's endpoint.
func TestServingBundle(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(r *room)
		want    bool
	}{
		"an unknown domain": {func(*room) {}, false},
		"a hosted domain": {
			func(r *room) {
				b := federationtest.NewAuthority(t, web).Bundle(t, 1)
				r.update(func(tx *raftstore.Tx) error {
					return federationtest.HostedBundles.Put(tx, web, b.Row(r.now))
				})
			}, true,
		},
		"a relationship without a bundle": {func(r *room) { r.relate(web) }, false},
		"a relationship": {
			func(r *room) { r.relate(web); r.hold(federationtest.NewAuthority(t, web).Bundle(t, 1)) }, true,
		},
		"a stale one": {
			func(r *room) {
				r.relate(web, func(row *statev1.Relationship) {
					row.Validity = &statev1.RelationshipValidity{Freshness: int32(ententev1.Freshness_FRESHNESS_STALE)}
				})
				r.hold(federationtest.NewAuthority(t, web).Bundle(t, 1))
			}, true,
		},
		"one whose X.509 authorities are past their max_stale": {
			func(r *room) {
				r.relate(web, func(row *statev1.Relationship) {
					row.Validity = &statev1.RelationshipValidity{
						Freshness: int32(ententev1.Freshness_FRESHNESS_STALE), X509Expired: true,
					}
				})
				r.hold(federationtest.NewAuthority(t, web).Bundle(t, 1))
			}, false,
		},
		"a suspended one": {
			func(r *room) {
				r.relate(web, func(row *statev1.Relationship) { row.Suspended = true })
				r.hold(federationtest.NewAuthority(t, web).Bundle(t, 1))
			}, false,
		},
		"one that waits for the other side's consent": {
			func(r *room) {
				r.relate(web, func(row *statev1.Relationship) {
					row.Agreement = &statev1.RelationshipAgreement{Id: "agreement"}
				})
				r.hold(federationtest.NewAuthority(t, web).Bundle(t, 1))
			}, false,
		},
		"one for JWT authorities alone": {
			func(r *room) {
				r.relate(web, func(row *statev1.Relationship) {
					row.AuthorityKinds = []int32{int32(ententev1.AuthorityKind_AUTHORITY_KIND_JWT)}
				})
				r.hold(federationtest.NewAuthority(t, web).Bundle(t, 1))
			}, false,
		},
		"a hub's attestation": {
			func(r *room) {
				r.relate(us, func(row *statev1.Relationship) {
					row.Hub = &statev1.RelationshipHub{Include: []string{web}}
				})
				r.update(func(tx *raftstore.Tx) error {
					return relationship.HubBundles.Put(tx, relationship.AttestationKey(web, us), &statev1.HubBundle{
						TrustDomain: web, Hub: us, RelationshipCreateTime: r.row().GetCreateTime(),
						Document: federationtest.NewAuthority(t, web).Bundle(t, 1).Marshal(),
					})
				})
			}, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			c.prepare(r)
			source, revision, err := r.ServingBundle(r.store.View(), web)
			require.NoError(t, err)
			if !c.want {
				require.Nil(t, source)
				require.Zero(t, revision)
				return
			}
			require.NotZero(t, revision)
			roots, err := source.GetX509BundleForTrustDomain(federationtest.NewAuthority(t, web).TrustDomain)
			require.NoError(t, err)
			require.Len(t, roots.X509Authorities(), 1)
		})
	}
}

// TestBasis: what verifies the endpoint is part of the basis, so that its replacement supersedes a decision.
func TestBasis(t *testing.T) {
	r := newRoom(t)
	require.Nil(t, r.basis(us).Trust, "its own bundle is not stored yet")
	r.hold(r.us.Bundle(t, 3))
	self := r.basis(us)
	require.Equal(t, self.Revision, self.TrustRevision)
	require.Equal(t, "endpoint https://us.example.org", self.Origin())
	self.Source = "peer us-1"
	require.Equal(t, "peer us-1", self.Origin())

	// An endpoint in another domain.
	serving := federationtest.NewAuthority(t, web)
	r.relate(us, func(row *statev1.Relationship) { row.EndpointSpiffeId = serving.EndpointID().String() })
	require.Nil(t, r.basis(us).Trust)
	r.relate(web)
	r.hold(serving.Bundle(t, 1))
	before := r.basis(us)
	require.NotNil(t, before.Trust)
	require.True(t, before.sameAs(r.basis(us)))
	r.hold(serving.Bundle(t, 2))
	after := r.basis(us)
	require.False(t, before.sameAs(after), "the bundle that verified the endpoint was replaced")
	require.Equal(t, before.Revision, after.Revision)
	_, err := r.Keep(t.Context(), us, before, r.us.Bundle(t, 4))
	require.ErrorIs(t, err, relationship.ErrSuperseded)
	r.relate(web, func(row *statev1.Relationship) { row.Suspended = true })
	_, err = r.Keep(t.Context(), us, after, r.us.Bundle(t, 4))
	require.ErrorIs(t, err, relationship.ErrSuperseded)

	// A web certificate needs no bundle.
	r.relate(us, func(row *statev1.Relationship) {
		row.Profile, row.EndpointSpiffeId = federationtest.WebProfile, ""
	})
	require.Nil(t, r.basis(us).Trust)
	require.Zero(t, r.basis(us).TrustRevision)
	_, err = r.BasisOf(r.store.View(), "none.example.org")
	require.ErrorIs(t, err, relationship.ErrEnded)
}

// TestOutcomeLocal: what fails for a reason of this cluster is not held against the peer.
func TestOutcomeLocal(t *testing.T) {
	for err, local := range map[error]bool{
		relationship.ErrSuperseded: true, audit.ErrUnaudited: true, raftstore.ErrNoLeader: true,
		relationship.ErrRollback: false, relationship.ErrEquivocation: false, relationship.ErrNoTrust: false,
		bundle.ErrMalformed: false, relationship.ErrEnded: false,
	} {
		require.Equal(t, local, Outcome{Result: relationship.ReasonOf(err)}.Local(), "%v", err)
	}
}

// TestStatementsDue: a statement is due on the newest version, if it has a sequence and no statement yet.
func TestStatementsDue(t *testing.T) {
	version := func(sequence uint64, digest ...byte) *statev1.BundleVersion {
		return &statev1.BundleVersion{Sequence: &sequence, StatementDigest: digest}
	}
	for name, c := range map[string]struct {
		versions []*statev1.BundleVersion
		from     uint64
		due      bool
	}{
		"no version":                 {},
		"a version without sequence": {versions: []*statev1.BundleVersion{{}}},
		"a version with a statement": {versions: []*statev1.BundleVersion{version(3, 1)}},
		"a version without one":      {versions: []*statev1.BundleVersion{version(3)}, from: 3, due: true},
		"an older version without one": {
			versions: []*statev1.BundleVersion{version(3), version(4, 1)},
		},
		"the newest without one": {
			versions: []*statev1.BundleVersion{version(3, 1), version(5)}, from: 5, due: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			from, due := StatementsDue(&statev1.ForeignHistory{Versions: c.versions})
			require.Equal(t, c.due, due)
			require.Equal(t, c.from, from)
		})
	}
}
