package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestServicesFollowTheirOrigin: a service that one cluster exports and another imports changes there as it does here,
// also after the leader, perhaps with the stream, has died; with the last stream gone it ages, and it
// comes back with the next one.
func TestServicesFollowTheirOrigin(t *testing.T) {
	eu := newCluster(t, "eu", 3, endpointHint("1h"))
	us := newCluster(t, "us", 1, endpointHint("1h")+`
routing { import_ttl = "10s" }
`)
	peerUp(t, us, eu)
	ctx, cancel := context.WithTimeout(t.Context(), 6*waitLimit)
	defer cancel()
	register := func(p *process, health string) {
		t.Helper()
		p.command("service", "register", "shop", "--endpoint", "10.0.0.1:443", "--locality", "eu-region/a",
			"--spiffe-id", "spiffe://eu.example.org/shop", "--health", health)
	}
	register(eu.members[0], "healthy")
	eu.members[1].command("service", "export", "shop", "--to", us.domain, "--as", "shop-eu")
	us.members[0].command("service", "import", "shop-eu", "--from", eu.domain, "--as", "shop")

	watch, err := us.members[0].socket().Routing().WatchHint(ctx, &ententev1.WatchHintRequest{
		Service: "shop", Locality: &ententev1.Locality{Region: "us-region", Zone: "a"},
	})
	require.NoError(t, err)
	// awaits waits for a hint in which the instance has a health, or is left out for a reason.
	awaits := func(health ententev1.Health, excluded string) {
		t.Helper()
		for {
			h, err := watch.Recv()
			require.NoError(t, err)
			for _, x := range h.GetExcluded() {
				if excluded != "" && x.GetReason() == excluded {
					return
				}
			}
			for _, priority := range h.GetPriorities() {
				for _, l := range priority.GetLocalities() {
					for _, e := range l.GetEndpoints() {
						if excluded == "" && e.GetHealth() == health {
							require.Equal(t, eu.domain, e.GetOrigin())
							require.Equal(t, "eu-region", l.GetLocality().GetRegion())
							return
						}
					}
				}
			}
		}
	}
	awaits(ententev1.Health_HEALTH_HEALTHY, "")
	began := time.Now()
	register(eu.members[2], "degraded")
	awaits(ententev1.Health_HEALTH_DEGRADED, "")
	t.Logf("a change of health was in the other cluster's hint %v after its command began", time.Since(began))

	eventually(t, "the exporting side to know that it arrived", func() error {
		if output := eu.members[1].command("service", "exports"); !strings.Contains(output, "acknowledged") {
			return fmt.Errorf("%s", output)
		}
		return nil
	})

	dead := eu.leader()
	dead.kill()
	left := eu.others(dead)
	eventually(t, "another leader", func() error { _, err := left[0].leaderID(); return err })
	register(left[1], "healthy")
	awaits(ententev1.Health_HEALTH_HEALTHY, "")

	// No member is left that confirms it.
	for _, p := range left {
		p.kill()
	}
	awaits(
		0, "import_expired: no stream with the cluster of eu.example.org has confirmed it for longer than import_ttl",
	)
	shown := us.members[0].command("service", "imports")
	require.Contains(t, shown, "expired")
	require.Regexp(t, `"import_expired": true`, us.members[0].command("service", "show", "shop", "-o", "json"),
		"it is kept")
	for _, p := range eu.members {
		p.run()
	}
	awaits(ententev1.Health_HEALTH_HEALTHY, "")

	// What either operator ends is gone.
	us.members[0].command("federation", "suspend", eu.domain)
	awaits(
		0,
		fmt.Sprintf(
			"the relationship with %[1]s is suspended; resume it with 'entente federation resume %[1]s'", eu.domain),
	)
	us.members[0].command("federation", "resume", eu.domain)
	awaits(ententev1.Health_HEALTH_HEALTHY, "")
	eu.members[0].command("service", "unexport", "shop-eu", "--to", us.domain, "--yes")
	eventually(t, "the instance to be gone", func() error {
		list, err := us.members[0].socket().Routing().ListServiceImports(ctx, &ententev1.ListServiceImportsRequest{})
		if err != nil {
			return err
		}
		if i := list.GetImports()[0]; i.GetState() != ententev1.ImportState_IMPORT_STATE_NOT_EXPORTED ||
			i.GetInstances() != 0 {
			return fmt.Errorf("%v", i)
		}
		return nil
	})
}
