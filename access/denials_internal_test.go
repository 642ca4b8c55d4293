package access

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
)

func TestDenialsAreBoundedByTrustDomain(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	d := newDenials(func() time.Time { return now })
	one := func(td string, n int) Caller {
		return SVIDCaller(spiffeid.RequireFromString(fmt.Sprintf("spiffe://%s/w%d", td, n)))
	}
	first := one("eu.test", 0)
	_, ok := d.take(first)
	require.True(t, ok)
	lines := 0
	for n := range 10_000 { // a domain that issues itself an ID for each call
		if _, ok := d.take(one("us.test", n)); ok {
			lines++
		}
	}
	require.Equal(t, maxDeniedCallers+sharedDenialBurst, lines)
	require.Len(t, d.domains[first.id.TrustDomain()], 1)
	require.Len(t, d.domains[spiffeid.RequireTrustDomainFromString("us.test")], maxDeniedCallers+1)
	for range denialBurst - 1 {
		_, ok := d.take(first)
		require.True(t, ok, "another trust domain takes nothing of this caller's budget")
	}
	_, ok = d.take(first)
	require.False(t, ok)

	all := d.summary()
	slices.SortFunc(all, func(a, b omission) int { return strings.Compare(a.caller, b.caller) })
	require.Equal(t, []omission{
		{"other callers of us.test", 10_000 - maxDeniedCallers - sharedDenialBurst},
		{"spiffe://eu.test/w0", 1},
	}, all)
	now = now.Add(time.Hour)
	require.Empty(t, d.summary())
	require.Empty(t, d.domains, "callers with a full budget are forgotten")
}
