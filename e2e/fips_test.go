package e2e

import (
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/shorttest"
)

// fipsOnly makes every algorithm panic that FIPS 140-3 does not approve.
const fipsOnly = "GODEBUG=fips140=only"

func TestMembersRunWithFIPSAlgorithmsOnly(t *testing.T) {
	// Every leaf passes zlint here, whose parser computes MD5 of it.
	c := newClusterWith(t, "eu", 2, quick+"authority { lint_sample = 1 }\n", fipsOnly)
	for _, p := range c.members {
		w := issue(t, p, "spiffe://eu.example.org/web")
		_, _, err := x509svid.Verify(w.svid.Certificates, w.bundle)
		require.NoError(t, err)
		_, err = issueToken(t, c, p)
		require.NoError(t, err)
	}
	eventually(t, "zlint has checked a leaf", func() error {
		const clean = `entente_authority_zlint_certificates_total{certificate="leaf",result="clean"} `
		if all := scrape(t, c.members[0]); !strings.Contains(all, clean) || strings.Contains(all, clean+"0\n") {
			return errors.New("none yet")
		}
		return nil
	})
	for _, p := range c.members {
		p.stop()
		require.NotContains(t, p.logs(), "panic")
	}
}

// scrape returns the metrics of a member.
func scrape(t *testing.T, p *process) string {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get("http://" + p.ops + "/metrics")
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return string(text)
}

// TestDemoRunsWithFIPSAlgorithmsOnly covers what a single cluster does not: invitations, streams between clusters,
// fetches of bundles, xDS and hints.
func TestDemoRunsWithFIPSAlgorithmsOnly(t *testing.T) {
	shorttest.Skip(t, "runs the demo")
	demo := exec.CommandContext(t.Context(), binary, "demo", "--once")
	demo.Env = append(os.Environ(), fipsOnly)
	out, err := demo.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
