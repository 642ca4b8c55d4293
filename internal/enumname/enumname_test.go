package enumname

import (
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func TestNames(t *testing.T) {
	d := ententev1.EndpointProfile(0).Descriptor()
	require.Equal(t, []string{"https_spiffe", "https_web"}, All(d))
	require.Empty(t, Of(ententev1.EndpointProfile_ENDPOINT_PROFILE_UNSPECIFIED))
	for _, name := range All(d) {
		n, ok := Number(d, name)
		require.True(t, ok)
		require.Equal(t, name, Name(d, n))
	}
	for _, unknown := range []string{"", "unspecified", "HTTPS_WEB", "ENDPOINT_PROFILE_HTTPS_WEB"} {
		_, ok := Number(d, unknown)
		require.False(t, ok, unknown)
	}
	require.Equal(t, "77", Of(ententev1.EndpointProfile(77)))
}
