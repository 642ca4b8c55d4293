package acceptance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/shorttest"
	"github.com/ententehq/entente/node/nodetest"
)

// keyDocument returns a bundle document with a JWT key alone, which names no trust domain.
func keyDocument(b *testing.B) []byte {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(b, err)
	point, err := key.PublicKey.ECDH()
	require.NoError(b, err)
	raw := point.Bytes()[1:]
	x, y := base64.RawURLEncoding.EncodeToString(raw[:32]), base64.RawURLEncoding.EncodeToString(raw[32:])
	return fmt.Appendf(nil, `{"keys":[{"use":"jwt-svid","kid":"a","kty":"EC","crv":"P-256","x":%q,"y":%q}],`+
		`"spiffe_sequence":1,"spiffe_refresh_hint":300}`, x, y)
}

// BenchmarkThousandResources measures an apply of 1,000 new relationships, and a plan of them and 1,000 grants that
// changes nothing, each against the bare calls of the API by as many goroutines as terraform has.
func BenchmarkThousandResources(b *testing.B) {
	shorttest.Skip(b, "it runs terraform")
	const (
		count       = 1000
		parallelism = 10 // terraform's default
	)
	for range b.N {
		m, err := nodetest.Start()
		require.NoError(b, err)
		w := workspaceFor(b, binary, m)
		bootstrap, document := filepath.Join(w.dir, "bundle.json"), keyDocument(b)
		require.NoError(b, os.WriteFile(bootstrap, document, 0o600))
		relationships := fmt.Sprintf(`
resource "entente_federation_relationship" "peer" {
  count        = %d
  trust_domain = "peer-${count.index}.example.org"
  url          = "https://127.0.0.1:1/"
  profile      = "https_web"
  bootstrap_wo = file(%q)
}
`, count, bootstrap)
		grants := fmt.Sprintf(`
resource "entente_access_grant" "reader" {
  count     = %d
  role      = "reader"
  spiffe_id = "spiffe://dev.example.org/reader/${count.index}"
}
`, count)
		timed := func(hcl string, args ...string) time.Duration {
			w.configure(hcl)
			began := time.Now()
			status, out := w.terraform(args...)
			require.Zero(b, status, out)
			return time.Since(began)
		}
		c := w.administrator()
		bare := func(call func(ctx context.Context, n int) error) time.Duration {
			began := time.Now()
			var tasks sync.WaitGroup
			for worker := range parallelism {
				tasks.Go(func() {
					for n := worker; n < count; n += parallelism {
						if err := call(b.Context(), n); err != nil {
							b.Error(err)
						}
					}
				})
			}
			tasks.Wait()
			return time.Since(began)
		}

		applied := timed(relationships, "apply", "-auto-approve", "-no-color")
		created := bare(func(ctx context.Context, n int) error {
			_, err := c.Federation().CreateRelationship(ctx, &ententev1.CreateRelationshipRequest{
				Relationship: &ententev1.Relationship{
					TrustDomain: fmt.Sprintf("bare-%d.example.org", n), Url: "https://127.0.0.1:1/",
					Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB,
				},
				BootstrapBundle: document,
			})
			return err
		})
		timed(relationships+grants, "apply", "-auto-approve", "-no-color")
		planned := timed(relationships+grants, "plan", "-detailed-exitcode", "-no-color")
		read := bare(func(ctx context.Context, n int) error {
			_, err := c.Federation().GetRelationship(ctx, &ententev1.GetRelationshipRequest{
				TrustDomain: fmt.Sprintf("peer-%d.example.org", n),
			})
			if err == nil {
				_, err = c.Access().GetGrant(ctx, &ententev1.GetGrantRequest{
					Role:     ententev1.Role_ROLE_READER,
					SpiffeId: fmt.Sprintf("spiffe://dev.example.org/reader/%d", n),
				})
			}
			return err
		})
		b.ReportMetric(applied.Seconds(), "apply-s")
		b.ReportMetric(created.Seconds(), "apply-calls-s")
		b.ReportMetric(planned.Seconds(), "plan-s")
		b.ReportMetric(read.Seconds(), "plan-calls-s")
		b.ReportMetric(0, "ns/op")
		require.NoError(b, m.Close())
	}
}
