package authority

import (
	"crypto"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/bundle"
)

// TestBundleSize bounds the document of a cluster of three with default settings, as docs/SCALE.md has it: each member
// has one root, two for most of the time, and three while one takes over, and as many JWT keys.
func TestBundleSize(t *testing.T) {
	store, err := keys.OpenFolder(filepath.Join(t.TempDir(), "keys"))
	require.NoError(t, err)
	hint := 5 * time.Minute
	sequence := uint64(1 << 40)
	content := bundle.Content{
		Sequence: &sequence, RefreshHint: &hint, JWTAuthorities: map[string]crypto.PublicKey{},
	}
	const members = 3
	for each, most := range map[int]int{1: 3_400, 2: 6_700, 3: 10_000} {
		t.Run(fmt.Sprintf("%d a member", each), func(t *testing.T) {
			content := content
			content.JWTAuthorities = map[string]crypto.PublicKey{}
			for i := range members * each {
				root, err := upstream.NewSelfSigned(store, 90*24*time.Hour).MakeRoot(t.Context(),
					upstream.Request{TrustDomain: home, Now: time.Now(), TTL: 24 * time.Hour})
				require.NoError(t, err)
				content.X509Authorities = append(content.X509Authorities, root)
				key, err := keys.Generate()
				require.NoError(t, err)
				content.JWTAuthorities[fmt.Sprintf("%016d", i)] = key.Public() // IDs of authorities have 16 characters
			}
			b, err := bundle.New(home, content)
			require.NoError(t, err)
			t.Logf("%d roots and %d keys: %d bytes", members*each, members*each, len(b.Marshal()))
			require.LessOrEqual(t, len(b.Marshal()), most)
		})
	}
}
