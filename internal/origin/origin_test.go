package origin_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/origin"
)

func TestOf(t *testing.T) {
	for address, host := range map[string]string{
		"192.0.2.7":            "192.0.2.7",
		"::ffff:192.0.2.7":     "192.0.2.7",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"2001:db8:1:2:ffff::1": "2001:db8:1:2::/64",
		"2001:db8:1:3::1":      "2001:db8:1:3::/64",
		"::1":                  "::/64",
		"fe80::1234:5678:9abc": "fe80::/64",
	} {
		require.Equal(t, host, origin.Of(&net.TCPAddr{IP: net.ParseIP(address), Port: 1, Zone: ""}).Host, address)
	}
	require.Equal(t, "fe80::/64", origin.Of(&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}).Host)
	require.Equal(t, "@", origin.Of(&net.UnixAddr{Name: "@", Net: "unix"}).Host)
	require.Equal(t, origin.Origin{Host: "2001:db8:1:2::/64", Site: "2001:db8:1::/48"},
		origin.Of(&net.TCPAddr{IP: net.ParseIP("2001:db8:1:2::3")}))
	require.Empty(t, origin.Of(&net.TCPAddr{IP: net.ParseIP("192.0.2.7")}).Site)
}

func TestCounts(t *testing.T) {
	counts := origin.Counts{}
	one, another := origin.Origin{Host: "a::/64", Site: "a::/48"}, origin.Origin{Host: "a:0:0:1::/64", Site: "a::/48"}
	counts.Add(one, 1)
	counts.Add(another, 1)
	counts.Add(origin.Origin{Host: "192.0.2.1"}, 1)
	require.Equal(t, origin.Counts{"a::/64": 1, "a:0:0:1::/64": 1, "a::/48": 2, "192.0.2.1": 1}, counts)
	counts.Add(one, -1)
	counts.Add(another, -1)
	counts.Add(origin.Origin{Host: "192.0.2.1"}, -1)
	require.Empty(t, counts)
}
