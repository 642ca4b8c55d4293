package federation

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// TestHostilePeers tests that the stored bundle is kept in all cases, and that the relationship, the metric and, unless
// it is an outage, the audit log have the name of the refusal.
func TestHostilePeers(t *testing.T) {
	us := federationtest.NewAuthority(t, "us.example.org")
	next := us.Rotated(t)
	fixed := func(b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) }
	}
	for _, test := range []struct {
		name    string
		do      func(p *federationtest.Endpoint)
		want    string
		audited bool
	}{
		{"an older bundle", func(p *federationtest.Endpoint) { p.Serve(us.Bundle(t, 4, next)) }, "rollback", true},
		{"other keys under the same sequence", func(p *federationtest.Endpoint) { p.Serve(us.Bundle(t, 5, next)) },
			"equivocation", true},
		{"another domain's endpoint", func(p *federationtest.Endpoint) {
			p.Present(t,
				federationtest.NewAuthority(t, "other.example.org"))
		}, "no_bundle", true},
		{"keys that were never published", func(p *federationtest.Endpoint) { p.Present(t, next) }, "untrusted_svid",
			true},
		{"no document", func(p *federationtest.Endpoint) { p.Handle(fixed([]byte("<html>"))) }, "malformed", true},
		{"a document without keys", func(p *federationtest.Endpoint) { p.Handle(fixed([]byte("{}"))) }, "no_keys",
			true},
		{"an oversized document", func(p *federationtest.Endpoint) {
			p.Handle(fixed([]byte(`{"keys":[],"x":"` + strings.Repeat("x", bundle.MaxDocumentBytes) + `"}`)))
		}, "too_large", true},
		{"status 500 with a valid body", func(p *federationtest.Endpoint) {
			document := us.Bundle(t, 6, next).Marshal()
			p.Handle(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusInternalServerError)
				_, _ = w.Write(document)
			})
		}, "bad_status", true},
		{"a redirect to http", func(p *federationtest.Endpoint) {
			p.Handle(func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://127.0.0.1/", http.StatusFound)
			})
		}, "bad_redirect", true},
		{"a redirect without end", func(p *federationtest.Endpoint) {
			p.Handle(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, p.URL, http.StatusFound) })
		}, "too_many_redirects", true},
		{"an answer that never ends", func(p *federationtest.Endpoint) {
			p.Handle(func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write([]byte(`{"keys":[`))
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
		}, "timeout", false},
		{"nobody there", func(p *federationtest.Endpoint) { p.Close() }, "network", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRoom(t, func(c *Config) { c.Client.Timeout = 700 * time.Millisecond })
			p := federationtest.NewEndpoint(t, us, us.Bundle(t, 5))
			r.create(t, spiffeRelationship(us, p), us.Bundle(t, 5))
			written := r.store.View().Revision()
			test.do(p)
			out := r.refresh(t, "us.example.org")
			require.Equal(t, test.want, out.GetLastResult(), out.GetLastError())
			require.NotEmpty(t, out.GetLastError())
			require.Equal(t, ententev1.Freshness_FRESHNESS_BOOTSTRAP, out.GetFreshness(),
				"one failure takes no trust away")
			require.True(t, r.stored(t, "us.example.org").Equal(us.Bundle(t, 5)))
			if len(out.GetAlarms()) == 0 {
				require.Equal(t, written, r.store.View().Revision(), "nothing was written")
			}
			require.InDelta(t, 1, federationtest.Metric(t, r.registry, "entente_federation_fetches_total", "result",
				test.want), 0)
			var lines []string
			if test.want == "equivocation" {
				require.Equal(t, relationship.AlarmSplitView, out.GetAlarms()[0].GetName())
				lines = append(lines, "raise alarm us.example.org: split_view")
			}
			if test.audited {
				lines = append(lines, "refuse bundle us.example.org: "+test.want)
			}
			require.Equal(t, lines, r.ledger.Decisions())
		})
	}
}

// TestFetchesAreLogged tests that each fetch logs one line with its result. Unchanged bundles, which are frequent, are
// logged at debug.
func TestFetchesAreLogged(t *testing.T) {
	var log bytes.Buffer
	r := newRoom(t, func(c *Config) {
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Debug, Mutex: &sync.Mutex{}})
	})
	us := federationtest.NewAuthority(t, "us.example.org")
	p := federationtest.NewEndpoint(t, us, us.Bundle(t, 1))
	r.create(t, spiffeRelationship(us, p), us.Bundle(t, 1))
	for _, c := range []struct {
		do          func()
		level, what string
	}{
		{func() { p.Serve(us.Bundle(t, 2, us.Rotated(t))) }, "[INFO]", "result=stored"},
		{func() {}, "[DEBUG]", "result=not_modified"},
		{func() { p.Serve(us.Bundle(t, 1)) }, "[WARN]", "result=rollback"},
		{func() { p.Close() }, "[WARN]", "result=network"},
	} {
		c.do()
		log.Reset()
		r.refresh(t, "us.example.org")
		var lines []string
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "result=") {
				lines = append(lines, line)
			}
		}
		require.Len(t, lines, 1, "%s", c.what)
		require.Contains(t, lines[0], c.level)
		require.Contains(t, lines[0], "trust_domain=us.example.org "+c.what)
	}
}

// TestRebuiltPeer tests that a peer that lost its state, and starts at sequence 1 with other keys, is refused until an
// operator resets the sequence.
func TestRebuiltPeer(t *testing.T) {
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	p := federationtest.NewEndpoint(t, us, us.Bundle(t, 40))
	r.create(t, spiffeRelationship(us, p), us.Bundle(t, 40))

	rebuilt := federationtest.NewAuthority(t, "us.example.org")
	p.Present(t, rebuilt)
	p.Serve(rebuilt.Bundle(t, 1))
	require.Equal(t, "untrusted_svid", r.refresh(t, "us.example.org").GetLastResult())
	_, err := r.service.UpdateRelationship(t.Context(), &ententev1.UpdateRelationshipRequest{
		Relationship: &ententev1.Relationship{TrustDomain: "us.example.org"}, UpdateMask: &fieldmaskpb.FieldMask{},
		BootstrapBundle: rebuilt.Bundle(t, 1).Marshal(), ResetSequence: true,
	})
	require.NoError(t, err)
	require.Equal(t, "unchanged", r.refresh(t, "us.example.org").GetLastResult())

	// From now on sequences are compared again.
	p.Serve(rebuilt.Bundle(t, 2))
	require.Equal(t, "stored", r.refresh(t, "us.example.org").GetLastResult())
	p.Serve(rebuilt.Bundle(t, 1))
	require.Equal(t, "rollback", r.refresh(t, "us.example.org").GetLastResult())
}

// TestResetDuringFetch tests that a fetch stores nothing if an operator has replaced the keys that verified it.
func TestResetDuringFetch(t *testing.T) {
	r := newRoom(t)
	stolen := federationtest.NewAuthority(t, "us.example.org")
	p := federationtest.NewEndpoint(t, stolen, stolen.Bundle(t, 1))
	r.create(t, spiffeRelationship(stolen, p), stolen.Bundle(t, 1))
	clean := federationtest.NewAuthority(t, "us.example.org")
	entered, release := make(chan struct{}), make(chan struct{})
	document := stolen.Bundle(t, 1<<40).Marshal()
	p.Handle(func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-release
		_, _ = w.Write(document)
	})
	ended := make(chan intake.Outcome, 1)
	go func() { ended <- r.manager.poller.Refresh(context.Background(), "us.example.org") }()
	<-entered
	_, err := r.service.UpdateRelationship(t.Context(), &ententev1.UpdateRelationshipRequest{
		Relationship: &ententev1.Relationship{
			TrustDomain: "us.example.org",
		}, BootstrapBundle: clean.Bundle(t, 1).Marshal(), ResetSequence: true,
	})
	require.NoError(t, err)
	close(release)
	require.Equal(t, "untrusted_svid", (<-ended).Result, "it was made again, by the new keys")
	require.True(t, r.stored(t, "us.example.org").Equal(clean.Bundle(t, 1)))
}

// TestDeletedDuringFetch tests that a fetch stores nothing after its relationship was deleted.
func TestDeletedDuringFetch(t *testing.T) {
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	p := federationtest.NewEndpoint(t, us, us.Bundle(t, 1))
	r.create(t, spiffeRelationship(us, p), us.Bundle(t, 1))
	entered, release := make(chan struct{}), make(chan struct{})
	document := us.Bundle(t, 2, us.Rotated(t)).Marshal()
	p.Handle(func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-release
		_, _ = w.Write(document)
	})
	ended := make(chan intake.Outcome, 1)
	go func() { ended <- r.manager.poller.Refresh(context.Background(), "us.example.org") }()
	<-entered
	_, err := r.service.DeleteRelationship(t.Context(),
		&ententev1.DeleteRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	close(release)
	require.Equal(t, "ended", (<-ended).Result)
	require.Nil(t, r.stored(t, "us.example.org"))
}

// TestNoBundleWithoutAudit tests that a bundle is not stored if it cannot be audited.
func TestNoBundleWithoutAudit(t *testing.T) {
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	p := federationtest.NewEndpoint(t, us, us.Bundle(t, 2, us.Rotated(t)))
	r.create(t, spiffeRelationship(us, p), us.Bundle(t, 1))
	r.ledger.Full = true
	out := r.refresh(t, "us.example.org")
	require.Equal(t, "not_audited", out.GetLastResult())
	require.Equal(t,
		"store bundle of us.example.org: accept bundle us.example.org: not done, because it cannot be audited: no "+
			"space left on device; make room on the member's disk, or use another member", out.GetLastError())
	require.EqualValues(t, 1, out.GetSequence())
}

// TestEndpointInAnotherDomain tests that an endpoint in another domain is verified by that domain's own bundle, hosted
// or foreign, and by nothing else.
func TestEndpointInAnotherDomain(t *testing.T) {
	r := newRoom(t)
	home := federationtest.NewAuthority(t, "eu.example.org")
	hub := federationtest.NewAuthority(t, "hub.example.org")
	ap := federationtest.NewAuthority(t, "ap.example.org")
	r.host(t, home)
	first := ap.Bundle(t, 1)
	served := func(by *federationtest.Authority, p *federationtest.Endpoint) *ententev1.Relationship {
		rel := spiffeRelationship(by, p)
		rel.TrustDomain = "ap.example.org"
		return rel
	}
	remove := func(td string) {
		_, err := r.service.DeleteRelationship(t.Context(), &ententev1.DeleteRelationshipRequest{TrustDomain: td})
		require.NoError(t, err)
	}

	r.create(t, served(home, federationtest.NewEndpoint(t, home, first)), nil)
	require.Equal(t, "stored", r.refresh(t, "ap.example.org").GetLastResult(), "by a hosted domain")
	remove("ap.example.org")

	hubPeer := federationtest.NewEndpoint(t, hub, first)
	r.create(t, spiffeRelationship(hub, hubPeer), hub.Bundle(t, 1))
	r.create(t, served(hub, hubPeer), nil)
	require.Equal(t, "stored", r.refresh(t, "ap.example.org").GetLastResult(), "by a foreign domain")
	hubPeer.Present(t, ap)
	require.NotEmpty(t, r.refresh(t, "ap.example.org").GetLastError(),
		"its own keys do not verify the hub's endpoint")
	remove("hub.example.org")
	out := r.refresh(t, "ap.example.org")
	require.Equal(t, "no_trust", out.GetLastResult())
	require.NotNil(t, r.stored(t, "ap.example.org"), "an outage of the hub takes no trust away")
}

func TestWebEndpoint(t *testing.T) {
	r := newRoom(t)
	us, web := federationtest.NewAuthority(t, "us.example.org"), federationtest.NewAuthority(t, "web.example.org")
	p := federationtest.NewEndpoint(t, web, us.Bundle(t, 1))
	rel := &ententev1.Relationship{
		TrustDomain: "us.example.org", Url: strings.Replace(p.URL, "127.0.0.1", "localhost", 1),
		Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB, WebRoots: web.PEM(),
	}
	out := r.create(t, rel, nil)
	require.Equal(t, ententev1.Freshness_FRESHNESS_UNSPECIFIED, out.GetFreshness())
	out = r.refresh(t, "us.example.org")
	require.Equal(t, "stored", out.GetLastResult(), out.GetLastError())
	require.Equal(t, ententev1.Freshness_FRESHNESS_FRESH, out.GetFreshness())
	require.Equal(t, []string{"accept bundle us.example.org: begun", "accept bundle us.example.org: done"},
		r.ledger.Decisions())
	p.Present(t, us)
	require.Equal(t, "other_profile", r.refresh(t, "us.example.org").GetLastResult())
}

// TestUnchangedBundleWritesNothing tests that the second fetch of a document is answered with 304, and that neither
// writes.
func TestUnchangedBundleWritesNothing(t *testing.T) {
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	p := federationtest.NewEndpoint(t, us, us.Bundle(t, 1))
	r.create(t, spiffeRelationship(us, p), us.Bundle(t, 1))
	before := r.store.View().Revision()
	require.Equal(t, "unchanged", r.refresh(t, "us.example.org").GetLastResult())
	require.Equal(t, "not_modified", r.refresh(t, "us.example.org").GetLastResult())
	require.Equal(t, before, r.store.View().Revision())
	require.Empty(t, r.ledger.Decisions(), "nothing was decided")

	// Once another bundle is stored, the old tag is not sent again.
	p.Serve(us.Bundle(t, 2))
	require.Equal(t, "stored", r.refresh(t, "us.example.org").GetLastResult())
	require.Equal(t, "not_modified", r.refresh(t, "us.example.org").GetLastResult())
	row := func() (change, retrieve time.Time) {
		stored, _, err := relationship.ForeignBundles.Get(r.store.View(), "us.example.org")
		require.NoError(t, err)
		return stored.Value.GetChangeTime().AsTime(), stored.Value.GetRetrieveTime().AsTime()
	}
	change, retrieve := row()
	require.True(t, change.Before(retrieve), "another sequence is no change of content")
}

func TestNoLeaderIsNotARefusal(t *testing.T) {
	require.Equal(t, "not_stored", relationship.ReasonOf(raftstore.ErrNoLeader))
	require.True(t, intake.Outcome{Result: "not_stored"}.Local())
	require.False(t, relationship.IsDecision("not_stored"))
}
