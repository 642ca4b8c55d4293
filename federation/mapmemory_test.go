package federation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
)

// TestMemoryOfAHubsMap: a map of more than 20 MiB, with more that is new than is held at once, never holds as much as 16 MiB while it comes.
func TestMemoryOfAHubsMap(t *testing.T) {
	const domains, whole, most = 7000, 1500, 16 << 20
	r := newRoom(t, func(c *Config) { c.Client.Timeout = 4 * patience })
	hub := newAuthority(t, "hub.example.org")
	keys := map[string]crypto.PublicKey{}
	for i := range 20 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		keys[fmt.Sprint("key-", i)] = key.Public()
	}
	one, err := bundle.New(newAuthority(t, "d.test").td, bundle.Content{JWTAuthorities: keys})
	require.NoError(t, err)
	vouched, err := bundle.Vouch(one)
	require.NoError(t, err)
	padded := fmt.Sprintf(`{"keys":[],"x":%q}`, strings.Repeat("x", 3<<10)) // of no meaning, and so read fast
	require.Less(t, domains*(max(len(vouched.Document), len(padded))+32), bundle.MaxMapBytes)

	live := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var held uint64
	p := newPeer(t, hub, hub.bundle(t, 1))
	p.answer(func(w http.ResponseWriter, request *http.Request) {
		if request.URL.Path != "/bundles" {
			_, _ = w.Write(hub.bundle(t, 1).Marshal())
			return
		}
		before := live()
		_, _ = w.Write([]byte(`{"trust_domains":{`))
		for i := range domains {
			if i > 0 {
				_, _ = w.Write([]byte(","))
			}
			document := padded
			if i < whole {
				document = string(vouched.Document)
			}
			_, _ = fmt.Fprintf(w, `"d%05d.test":%s`, i, document)
			if i%1000 == 999 {
				if now := live(); now > before {
					held = max(held, now-before)
				}
			}
		}
		_, _ = w.Write([]byte("}}"))
	})
	r.takes(t, hub, p, ".test")
	view := r.store.View()
	b, err := r.manager.basisOf(view, "hub.example.org")
	require.NoError(t, err)
	_, _, err = r.manager.readMap(t.Context(), "hub.example.org", b)
	require.ErrorIs(t, err, errMapIncomplete, "the rest is taken by further readings")
	t.Logf("at most %d KiB were held", held>>10)
	require.NotZero(t, held)
	require.Less(t, held, uint64(most))
	brought, err := BroughtBy(r.store.View(), "hub.example.org")
	require.NoError(t, err)
	require.Greater(t, len(brought), 500)
}
