package routing

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestARestoreSharesNothingAgain: what was taken back since the snapshot stays so, where the agreement stood.
func TestARestoreSharesNothingAgain(t *testing.T) {
	r, ctx := sharingRoom(t), admin(t)
	r.agree(t, "ap.example.org", "ap.example.org", epoch, true)
	for _, to := range []string{"us.example.org", "ap.example.org"} {
		r.exports(t, export("shop", to))
		r.exports(t, export("cart", to))
		r.exports(t, export("bank", to))
		r.imports(t, "shop", to, "")
		r.imports(t, "cart", to, "")
	}
	var snapshot bytes.Buffer
	_, err := r.store.SaveSnapshot(ctx, &snapshot)
	require.NoError(t, err)

	_, err = r.UnexportService(ctx, &ententev1.UnexportServiceRequest{Name: "shop", To: "us.example.org"})
	require.NoError(t, err)
	narrow := export("cart", "us.example.org")
	narrow.PathPrefix = "/cart/public"
	r.exports(t, narrow)
	_, err = r.UnimportService(ctx, &ententev1.UnimportServiceRequest{Service: "shop", From: "us.example.org"})
	require.NoError(t, err)
	// The agreement with ap ended and was made anew: what counts of the snapshot is none of the new one's, and is ended later.
	r.agree(t, "ap.example.org", "ap.example.org", epoch.Add(time.Hour), true)
	for _, name := range []string{"shop", "cart"} {
		_, err = r.UnexportService(ctx, &ententev1.UnexportServiceRequest{Name: name, To: "ap.example.org"})
		require.NoError(t, err)
	}

	_, err = r.store.RestoreSnapshot(ctx, &snapshot)
	require.NoError(t, err)
	list, err := exports(r.store.View(), "us.example.org/")
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, "bank", list[0].Name)
	require.Equal(t, "/cart/public", list[1].PathPrefix)
	list, err = exports(r.store.View(), "ap.example.org/")
	require.NoError(t, err)
	require.Len(t, list, 3)
	taken, err := imports(r.store.View())
	require.NoError(t, err)
	require.Len(t, taken, 3)
}
