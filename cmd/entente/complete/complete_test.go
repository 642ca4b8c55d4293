package complete

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBeginning(t *testing.T) {
	require.Equal(t, []string{"eu-1\ta", "eu-2"},
		beginning([]string{"eu-2", "us-1", "eu-1\ta", "eu-2", "", "eu-\x1b[2J", "eu-\u202e"}, "eu-"))
	require.Empty(t, beginning(nil, ""))
}

func TestDescribed(t *testing.T) {
	require.Equal(t, "a", described("a", "", ""))
	require.Equal(t, "a\tb, c\\n", described("a", "b", "", "c\n"))
}
