package loop

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestThrottle(t *testing.T) {
	start := time.Now()
	var c throttle
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
		require.Equal(t, step.want, c.failed(step.text, start.Add(step.at)), "%v %s", step.at, step.text)
	}
	require.True(t, c.succeeded())
	require.False(t, c.succeeded())
	require.True(t, c.failed("sealed", start), "a new failure is logged at once")
}
