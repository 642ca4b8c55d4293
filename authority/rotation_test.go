package authority

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/bundle"
)

// issued is a live SVID, with the function that verifies it.
type issued struct {
	what   string
	expire time.Time
	verify func(b *bundle.Bundle, now time.Time) error
}

// issue gets an SVID of each kind from a member.
func (f *fleet) issue(c *node, id string) []issued {
	f.t.Helper()
	all, err := f.tryIssue(c, id)
	require.NoError(f.t, err, "member %s at +%v", c.id, f.ahead)
	return all
}

// tryIssue is issue that can fail.
func (f *fleet) tryIssue(c *node, id string) ([]issued, error) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	x, err := c.SVIDService().IssueX509SVID(ctx, x509Request(f.t, id))
	if err != nil {
		return nil, err
	}
	j, err := c.SVIDService().IssueJWTSVID(ctx, &ententev1.IssueJWTSVIDRequest{SpiffeId: id, Audience: []string{"db"}})
	if err != nil {
		return nil, err
	}
	chain := parse(f.t, x.GetCertificates())
	return []issued{
		{
			"X509-SVID of authority " + x.GetAuthorityId(),
			x.GetExpireTime().AsTime(),
			func(b *bundle.Bundle, now time.Time) error {
				_, _, err := x509svid.Verify(chain, b, x509svid.WithTime(now))
				return err
			},
		},
		{
			"JWT-SVID of authority " + j.GetAuthorityId(),
			j.GetExpireTime().AsTime(),
			func(b *bundle.Bundle, now time.Time) error {
				token, err := jwt.ParseSigned(j.GetToken(), []jose.SignatureAlgorithm{jose.ES256})
				if err != nil {
					return err
				}
				var claims jwt.Claims
				if err := token.Claims(b.JWTAuthorities()[token.Headers[0].KeyID], &claims); err != nil {
					return err
				}
				return claims.ValidateWithLeeway(jwt.Expected{Time: now, AnyAudience: []string{"db"}}, 0)
			},
		},
	}, nil
}

// requireUnverified requires the error of an SVID that the bundle does not verify: of an X509-SVID or of a JWT-SVID.
func requireUnverified(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	require.Regexp(t, "certificate signed by unknown authority|unsupported key type/format", err.Error())
}

// TestRotationWithoutPause plays two days of three members with rotations, in steps of the refresh hint. At each step
// every member signs, and every live SVID is verified by the bundles of the last three hints.
func TestRotationWithoutPause(t *testing.T) {
	f := newThree(t, nil)
	ctx := context.Background()
	alive := []issued{}
	old := []*bundle.Bundle{f.bundle(home)} // what readers hold: the newest, and those of the last two hints
	last := old[0]
	for step := range 2 * 24 * 12 / 3 {
		if step%40 == 20 {
			_, err := f.nodes[step%3].AuthorityService().
				RotateAuthorities(ctx, &ententev1.RotateAuthoritiesRequest{Anchors: step%80 == 20})
			require.NoError(t, err)
			f.settle()
		}
		// Every third hint of the day is looked at; around rotations each.
		stride := 3
		if step%40 >= 20 && step%40 < 26 {
			stride = 1
		}
		for i, c := range f.nodes {
			alive = append(alive, f.issue(c, workload(i))...)
		}
		for range stride {
			f.advance(plan.DefaultRefreshHint)
			b := f.bundle(home)
			sequence(t, last, b)
			last = b
			old = append(old, b)
			if len(old) > plan.HintsBeforeUse {
				old = old[1:]
			}
		}
		now := f.now()
		kept := alive[:0]
		for _, svid := range alive {
			if !now.Before(svid.expire) {
				continue
			}
			kept = append(kept, svid)
			for age, b := range old {
				require.NoError(t, svid.verify(b, now), "%s by the bundle of %d hints ago at +%v", svid.what,
					len(old)-1-age, f.ahead)
			}
		}
		alive = kept
	}
	for _, c := range f.nodes {
		require.Zero(t, c.metricSum("entente_authority_forced_activations_total"))
		require.NotZero(t, c.metricSum("entente_authority_signatures_total"))
		names, err := c.keys.Names(context.Background())
		require.NoError(t, err)
		require.LessOrEqual(t, len(names), 8, "keys of authorities that are gone are deleted: %v", names)
	}
}

// sequence checks that the sequence of a bundle only rises, and stands for one document.
func sequence(t *testing.T, was, is *bundle.Bundle) {
	t.Helper()
	before, _ := was.Sequence()
	after, _ := is.Sequence()
	require.GreaterOrEqual(t, after, before)
	if after == before {
		require.True(t, was.Equal(is), "sequence %d stands for two documents", after)
	}
}

// metricSum returns the sum over all series of a metric.
func (c *node) metricSum(name string) float64 { return c.metric(name) }

// metric returns the sum over the series of a metric that have all these label values.
func (c *node) metric(name string, labels ...string) float64 {
	families, err := c.registry.Gather()
	if err != nil {
		return -1
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			values := map[string]bool{}
			for _, l := range m.GetLabel() {
				values[l.GetValue()] = true
			}
			if !slices.ContainsFunc(labels, func(label string) bool { return !values[label] }) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
