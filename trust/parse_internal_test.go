package trust

import (
	"fmt"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
)

func emptyBundle(t *testing.T, name string, sequence uint64) *bundle.Bundle {
	t.Helper()
	b, err := bundle.New(spiffeid.RequireTrustDomainFromString(name), bundle.Content{Sequence: &sequence})
	require.NoError(t, err)
	return b
}

func TestParse(t *testing.T) {
	b := emptyBundle(t, "eu.example.org", 3)
	row := b.Row(time.Unix(1000, 0))
	back, err := Parse(row)
	require.NoError(t, err)
	require.True(t, back.Equal(b))
	again, err := Parse(b.Row(time.Unix(2000, 0)))
	require.NoError(t, err)
	require.Same(t, back, again, "the same document is parsed once")

	changed, err := Parse(emptyBundle(t, "eu.example.org", 4).Row(time.Unix(1000, 0)))
	require.NoError(t, err)
	require.False(t, changed.Equal(b))
	other, err := Parse(emptyBundle(t, "us.example.org", 3).Row(time.Unix(1000, 0)))
	require.NoError(t, err)
	require.Equal(t, "us.example.org", other.TrustDomain().Name(), "a document does not name its domain")

	row.TrustDomain = "Not A Domain"
	_, err = Parse(row)
	require.ErrorIs(t, err, bundle.ErrTrustDomain)
	_, err = Parse(&statev1.Bundle{TrustDomain: "eu.example.org", Document: []byte("{")})
	require.ErrorIs(t, err, bundle.ErrMalformed)
	_, err = Parse(nil)
	require.EqualError(t, err, "there is no stored bundle")
}

func TestCacheIsBounded(t *testing.T) {
	document := func(i int) []byte { return fmt.Appendf(nil, `{"keys":[],"spiffe_sequence":%04d}`, i) }
	size := len(document(1000))
	for name, c := range map[string]*cache{"by entries": newCache(3, 1<<20, 1<<20), "by bytes": newCache(100, 3*size,
		size)} {
		t.Run(name, func(t *testing.T) {
			get := func(i int) *bundle.Bundle {
				b, err := c.get("eu.example.org", document(i))
				require.NoError(t, err)
				return b
			}
			first := get(1001)
			for i := 1002; i < 1100; i++ {
				get(i)
				require.Same(t, first, get(1001), "the bundle that is used stays")
			}
			require.Len(t, c.entries, 3)
			require.Equal(t, 3, c.order.Len())
			require.Equal(t, 3*size, c.bytes)
			require.NotSame(t, get(1050), get(1098))
		})
	}
}

func TestLargeDocumentsAreNotKept(t *testing.T) {
	c := newCache(3, 1<<20, 20)
	b, err := c.get("eu.example.org", []byte(`{"keys":[],"spiffe_sequence":1}`))
	require.NoError(t, err)
	require.NotNil(t, b)
	require.Empty(t, c.entries)
	require.Zero(t, c.bytes)
}
