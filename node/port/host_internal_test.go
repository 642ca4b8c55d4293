package port

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHostOf(t *testing.T) {
	for address, host := range map[string]string{
		"192.0.2.7":            "192.0.2.7",
		"::ffff:192.0.2.7":     "192.0.2.7",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"2001:db8:1:2:ffff::1": "2001:db8:1:2::/64",
		"2001:db8:1:3::1":      "2001:db8:1:3::/64",
		"::1":                  "::/64",
		"fe80::1234:5678:9abc": "fe80::/64",
	} {
		require.Equal(t, host, hostOf(&net.TCPAddr{IP: net.ParseIP(address), Port: 1, Zone: ""}), address)
	}
	require.Equal(t, "fe80::/64", hostOf(&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}))
	require.Equal(t, "@", hostOf(&net.UnixAddr{Name: "@", Net: "unix"}))
}
