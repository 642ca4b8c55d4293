package federation

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
)

// serveTaggedMap is serveMap with a tag; it counts how often the map was served whole.
func (p *peer) serveTaggedMap(own *bundle.Bundle, tag string, document []byte) (whole *int) {
	whole = new(int)
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/bundles" {
			_, _ = w.Write(own.Marshal())
			return
		}
		w.Header().Set("ETag", `"`+tag+`"`)
		if r.Header.Get("If-None-Match") == `"`+tag+`"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		*whole++
		_, _ = w.Write(document)
	})
	return whole
}

// TestAChangedMapLeavesTheOthersUnread: a map is read whole where it changed, or what was taken from it, and not because another hub's did.
func TestAChangedMapLeavesTheOthersUnread(t *testing.T) {
	r := newRoom(t)
	first, second := newAuthority(t, "hub1.example.org"), newAuthority(t, "hub2.example.org")
	a, b := newAuthority(t, "a.example.org"), newAuthority(t, "b.example.org")
	p1, p2 := newPeer(t, first, first.bundle(t, 1)), newPeer(t, second, second.bundle(t, 1))
	whole := p1.serveTaggedMap(first.bundle(t, 1), "one", mapOf(t, a.bundle(t, 5)))
	p2.serveTaggedMap(second.bundle(t, 1), "two", mapOf(t, b.bundle(t, 5)))
	r.takes(t, first, p1, ".example.org")
	r.takes(t, second, p2, ".example.org")
	r.refresh(t, "hub1.example.org")
	r.refresh(t, "hub2.example.org")
	before := *whole
	require.Positive(t, before)

	p2.serveTaggedMap(second.bundle(t, 1), "three", mapOf(t, b.bundle(t, 6)))
	r.refresh(t, "hub2.example.org")
	_, sequence := r.word(t, "b.example.org")
	require.EqualValues(t, 6, sequence)
	r.refresh(t, "hub1.example.org")
	require.Equal(t, before, *whole, "nothing changed about this hub")

	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return HubBundles.Delete(tx, wordKey("a.example.org", "hub1.example.org"))
	})
	require.NoError(t, err)
	r.refresh(t, "hub1.example.org")
	require.Equal(t, before+1, *whole, "what was taken is gone")
	_, sequence = r.word(t, "a.example.org")
	require.EqualValues(t, 5, sequence)
}
