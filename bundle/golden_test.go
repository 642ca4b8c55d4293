package bundle_test

import (
	"encoding/hex"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

// TestGolden holds the form of documents and the digest of keys. Both go over the wire and onto disk: a change here
// makes members of different versions disagree on whether two bundles are the same.
func TestGolden(t *testing.T) {
	document, err := os.ReadFile("testdata/bundle.json")
	require.NoError(t, err)
	b, ignored, err := bundle.Parse(bundletest.Home, document)
	require.NoError(t, err)
	require.Empty(t, ignored)
	require.Len(t, b.X509Authorities(), 3)
	require.Len(t, b.JWTAuthorities(), 4)
	require.Equal(t, string(document), string(b.Marshal()))
	digest := b.Digest()
	require.Equal(t, "672fa66a893d41b54561969acab9c03867d5d5bddc1b314239c2a33bfe815109", hex.EncodeToString(digest[:]))
}
