package authority

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNoAuthority(t *testing.T) {
	require.Equal(t, "No authority is visible to you.", noAuthority(""))
	require.Equal(
		t,
		"us.example.org has no authority yet: each member makes its own in a moment, "+
			"or its log has the reason why not.",
		noAuthority("us.example.org"),
	)
}
