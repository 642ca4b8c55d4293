package peer

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A stream that gave way to another one is not shown as down, and every other one that is down is.
func TestReplacedStreams(t *testing.T) {
	connected := observation{known: true, connected: true}
	for _, c := range []struct {
		name string
		of   observation
		all  []observation
		want bool
	}{
		{"moved to another member", observation{result: "moved"}, []observation{connected}, true},
		{"the peer's stream is kept", observation{result: "duplicate"}, []observation{connected}, true},
		{"moved, and the other one is down too", observation{result: "moved"}, []observation{{result: "lost"}}, false},
		{"lost beside one that is connected", observation{result: "lost"}, []observation{connected}, false},
		{"suspended", observation{result: "suspended"}, []observation{connected}, false},
		{"connected", observation{connected: true, result: "moved"}, []observation{connected}, false},
	} {
		all := map[string]observation{"eu-1": c.of}
		for i, other := range c.all {
			all["other-"+string(rune('a'+i))] = other
		}
		require.Equal(t, c.want, replaced(c.of, all), c.name)
	}
}
