package authority

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestComplaint(t *testing.T) {
	start := time.Now()
	var c complaint
	for _, step := range []struct {
		at   time.Duration
		text string
		want bool
	}{
		{0, "sealed", true},
		{time.Second, "sealed", false},
		{2 * time.Second, "down, port 4711", false},
		{repeatChanged, "sealed", false},
		{repeatChanged, "down, port 4712", true},
		{repeatChanged + repeatSame - time.Second, "down, port 4712", false},
		{repeatChanged + repeatSame, "down, port 4712", true},
	} {
		require.Equal(t, step.want, c.worth(step.text, start.Add(step.at)), "%v %s", step.at, step.text)
	}
	require.True(t, c.over())
	require.False(t, c.over())
	require.True(t, c.worth("sealed", start), "a new failure is told at once")
}
