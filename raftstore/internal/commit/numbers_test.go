package commit

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSettledCommandsOfOneMember(t *testing.T) {
	c := NewNumbers("m", 1)
	first, settled := c.Open()
	require.Equal(t, []uint64{1, 1}, []uint64{first.GetCounter(), settled})
	second, settled := c.Open()
	require.Equal(t, []uint64{2, 1}, []uint64{second.GetCounter(), settled})
	c.Settle(second.GetCounter())
	third, settled := c.Open()
	require.Equal(t, []uint64{3, 1}, []uint64{third.GetCounter(), settled}, "the first is still open")
	c.Settle(first.GetCounter())
	require.Equal(t, uint64(4), c.Next(), "a transaction's number is none of a command")
	fourth, settled := c.Open()
	require.Equal(t, []uint64{5, 3}, []uint64{fourth.GetCounter(), settled})
}
