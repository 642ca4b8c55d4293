package client_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	"github.com/ententehq/entente/client"
)

func TestUnconfirmed(t *testing.T) {
	for mark, want := range map[string]uint64{
		"as of revision 7, no leader":                    7,
		"as of revision 18446744073709551615, no leader": 1<<64 - 1,
		"as of revision 0, no leader":                    0,
	} {
		revision, unconfirmed := client.Unconfirmed(metadata.Pairs("entente-state", mark))
		require.True(t, unconfirmed, mark)
		require.Equal(t, want, revision, mark)
	}
	for _, mark := range []string{
		"", "as of revision , no leader", "as of revision -1, no leader", "as of revision 7", "no leader",
		"as of revision 18446744073709551616, no leader",
	} {
		_, unconfirmed := client.Unconfirmed(metadata.Pairs("entente-state", mark))
		require.False(t, unconfirmed, mark)
	}
	_, unconfirmed := client.Unconfirmed(nil)
	require.False(t, unconfirmed)
}
