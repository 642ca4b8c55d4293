package exchange

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/routingtest"
)

// TestRestoreSharesNothingAgain: what was withdrawn after the snapshot stays withdrawn, if the agreement still exists.
func TestRestoreSharesNothingAgain(t *testing.T) {
	m, ctx := newExporter(t), routingtest.Admin(t)
	m.agree(t, "ap.example.org", "ap.example.org", routingtest.Epoch, true)
	for _, to := range []string{"us.example.org", "ap.example.org"} {
		m.exports(t, export("shop", to))
		m.exports(t, export("cart", to))
		m.exports(t, export("bank", to))
		m.imports(t, "shop", to, "")
		m.imports(t, "cart", to, "")
	}
	var snapshot bytes.Buffer
	_, err := m.store.Snapshots().Save(ctx, &snapshot)
	require.NoError(t, err)

	_, err = m.UnexportService(ctx, &ententev1.UnexportServiceRequest{Name: "shop", To: "us.example.org"})
	require.NoError(t, err)
	narrow := export("cart", "us.example.org")
	narrow.PathPrefix = "/cart/public"
	m.exports(t, narrow)
	_, err = m.UnimportService(ctx, &ententev1.UnimportServiceRequest{Service: "shop", From: "us.example.org"})
	require.NoError(t, err)
	// The agreement with ap ended and was replaced. What the snapshot has belongs to the old one, and is deleted later.
	m.agree(t, "ap.example.org", "ap.example.org", routingtest.Epoch.Add(time.Hour), true)
	for _, name := range []string{"shop", "cart"} {
		_, err = m.UnexportService(ctx, &ententev1.UnexportServiceRequest{Name: name, To: "ap.example.org"})
		require.NoError(t, err)
	}

	_, err = m.store.Snapshots().Restore(ctx, &snapshot)
	require.NoError(t, err)
	list, err := exportTable.list(m.store.View())
	require.NoError(t, err)
	var names []string
	for _, e := range list {
		names = append(names, e.To+" "+e.Name+e.PathPrefix)
	}
	require.ElementsMatch(t, []string{
		"us.example.org bank", "us.example.org cart/cart/public",
		"ap.example.org bank", "ap.example.org cart", "ap.example.org shop",
	}, names)
	imports, err := importTable.list(m.store.View())
	require.NoError(t, err)
	require.Len(t, imports, 3)
}
