package acceptance

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// TestRegistrationEntry creates, updates, imports and destroys an entry.
func TestRegistrationEntry(t *testing.T) {
	w := newWorkspace(t)
	c := w.administrator()
	const entry = `
resource "entente_registration_entry" "web" {
  id            = "web"
  spiffe_id     = "spiffe://dev.example.org/web"
  agent         = "node-1"
  selectors     = ["unix:user:web", "unix:gid:7"]
  x509_svid_ttl = "10m"
  dns_names     = ["web.example.org"]
}
`
	get := func() (*ententev1.Entry, error) {
		return c.Entries().GetEntry(t.Context(), &ententev1.GetEntryRequest{Id: "web"})
	}
	w.apply(entry)
	is, err := get()
	require.NoError(t, err)
	require.Equal(t, []string{"unix:gid:7", "unix:user:web"}, is.GetSelectors(), "the server sorts them")
	w.unchanged()

	// A change by somebody else is seen, and put right. What is taken out of the configuration ends.
	_, err = c.Entries().UpdateEntry(t.Context(), &ententev1.UpdateEntryRequest{
		Entry:      &ententev1.Entry{Id: "web", Selectors: []string{"unix:uid:0"}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"selectors"}},
	})
	require.NoError(t, err)
	require.Contains(t, w.plans(entry), "unix:uid:0")
	changed := strings.Replace(entry, `  dns_names     = ["web.example.org"]`, `  hint          = "shop"`, 1)
	w.apply(changed)
	is, err = get()
	require.NoError(t, err)
	require.Empty(t, is.GetDnsNames())
	require.Equal(t, "shop", is.GetHint())
	require.Equal(t, []string{"unix:gid:7", "unix:user:web"}, is.GetSelectors())

	other := newSibling(w)
	other.configure(strings.Replace(changed, `"unix:user:web", "unix:gid:7"`, `"unix:gid:7", "unix:user:web"`, 1))
	status, out := other.terraform("import", "-no-color", "entente_registration_entry.web", "web")
	require.Zero(t, status, out)
	other.unchanged()

	// The plan refuses what the server would.
	require.Contains(t, w.refused(strings.Replace(entry, `agent         = "node-1"`, "", 1), "plan"), "for no agent")
	w.configure(changed)
	w.destroy()
	_, err = get()
	require.ErrorIs(t, err, client.ErrNotFound)
}
