package authority

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNoAuthority(t *testing.T) {
	require.Equal(t, "There is no authority that you may see.", noAuthority(""))
	require.Equal(t, "us.example.org has no authority yet: each member makes its own in a moment, or its log says what keeps it from that.", noAuthority("us.example.org"))
}
