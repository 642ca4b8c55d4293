package federation

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
)

// TestHostilePeersDoNotStarveOthers tests that a member keeps the bundles of good peers up to date while more peers
// than there are places for fetches hang, drip and flood. Each peer is a TLS server; the hostile domains share three.
func TestHostilePeersDoNotStarveOthers(t *testing.T) {
	const good, hostile, turns = 6, 96 + 32 + 12, 3
	r := newRoom(t)
	web := federationtest.NewAuthority(t, "web.example.org")
	second := time.Second
	var mu sync.Mutex
	attacked := make(map[string]bool)
	attack := func(then http.HandlerFunc) *federationtest.Endpoint {
		p := federationtest.NewEndpoint(t, web, web.Bundle(t, 1))
		p.Handle(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			attacked[r.URL.Path] = true
			mu.Unlock()
			then(w, r)
		})
		return p
	}
	attacks := []*federationtest.Endpoint{
		attack(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		attack(func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(" "))
				_ = http.NewResponseController(w).Flush()
				select {
				case <-tick.C:
				case <-r.Context().Done():
				}
			}
		}),
		attack(func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(strings.Repeat(" ", 4096))); err != nil {
					return
				}
			}
		}),
	}
	for i := range hostile {
		td := fmt.Sprintf("hostile-%d.example.org", i)
		r.create(t, &ententev1.Relationship{
			TrustDomain: td, Url: strings.Replace(attacks[i%3].URL, "127.0.0.1", "localhost", 1) + "/" + td,
			Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB, WebRoots: web.PEM(),
		}, nil)
	}
	us := make([]*federationtest.Authority, good)
	peers := make([]*federationtest.Endpoint, good)
	for i := range good {
		us[i] = federationtest.NewAuthority(t, fmt.Sprintf("good-%d.example.org", i))
		us[i].Hint = &second
		peers[i] = federationtest.NewEndpoint(t, us[i], us[i].Bundle(t, 1))
		r.create(t, spiffeRelationship(us[i], peers[i]), us[i].Bundle(t, 1))
	}
	r.run(t)
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(attacked) == hostile
	}, 2*federationtest.WaitLimit, 10*time.Millisecond, "every hostile peer was polled")
	for n := uint64(2); n < 2+turns; n++ {
		for i, p := range peers {
			p.Serve(us[i].Bundle(t, n))
		}
		for _, a := range us {
			r.awaitSequence(t, a.TrustDomain.Name(), n)
		}
	}
	require.Zero(t, attacksAnswered(r, hostile), "and no hostile peer has got anything stored")
}

func attacksAnswered(r *room, hostile int) (stored int) {
	for i := range hostile {
		td := fmt.Sprintf("hostile-%d.example.org", i)
		if _, found, err := relationship.ForeignBundles.Get(r.store.View(), td); err != nil ||
			found {
			stored++
		}
	}
	return stored
}
