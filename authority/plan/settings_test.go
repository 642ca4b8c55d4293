package plan

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHint: an authority waits for readers that still poll at a longer hint.
func TestHint(t *testing.T) {
	now := time.Now()
	s := defaults().WithHint(time.Minute, now)
	require.Equal(t, 15*time.Minute, s.Dissemination(now))
	require.Equal(t, 3*time.Minute, s.Dissemination(now.Add(15*time.Minute)))
	s = s.WithHint(30*time.Second, now.Add(time.Minute))
	require.Equal(t, 15*time.Minute, s.Dissemination(now.Add(2*time.Minute)),
		"the longest that anybody can be polling at counts")
	s = s.WithHint(time.Hour, now.Add(2*time.Minute))
	require.Equal(t, 3*time.Hour, s.Dissemination(now.Add(2*time.Minute)))
}
