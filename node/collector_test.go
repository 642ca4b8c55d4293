package node

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCollectorPercent(t *testing.T) {
	for inUse, want := range map[uint64]int{
		0: 100, 1 << 20: 200, 16 << 20: 200, 32 << 20: 100, 48 << 20: 66, 64 << 20: 50, 10 << 30: 50, 1 << 63: 50,
	} {
		require.Equal(t, want, collectorPercent(inUse), "%d bytes in use", inUse)
	}
}
