package workload

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
)

// TestSharesOfUsers tests that each user leaves some to the others, and that what is given back is free again.
func TestSharesOfUsers(t *testing.T) {
	s := NewShares(8)
	fill := func(uid uint32) (release []func()) {
		for {
			leave, ok := s.Take(uid)
			if !ok {
				return release
			}
			release = append(release, leave)
		}
	}
	first := fill(1)
	require.Len(t, first, 4)
	second := fill(2)
	require.Len(t, second, 2)
	require.Len(t, fill(3), 1)
	require.Empty(t, fill(1))
	for _, leave := range append(first, second...) {
		leave()
	}
	require.Len(t, fill(4), 4, "7 of 8 are free")
	require.Empty(t, s.of[1])
}

// TestConnectionsOfOneUserAreBounded opens connections until one is refused, and closes one.
func TestConnectionsOfOneUserAreBounded(t *testing.T) {
	creds := Credentials(NewShares(4), hclog.NewNullLogger())
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	defer l.Close()
	open := func() (net.Conn, error) {
		client, err := net.Dial("unix", l.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = client.Close() })
		raw, err := l.Accept()
		require.NoError(t, err)
		t.Cleanup(func() { _ = raw.Close() })
		conn, _, err := creds.ServerHandshake(raw)
		return conn, err
	}
	one, err := open()
	require.NoError(t, err)
	_, err = open()
	require.NoError(t, err)
	_, err = open()
	require.ErrorContains(t, err, "has as many connections as are left for all others")
	require.NoError(t, one.Close())
	_ = one.Close() // a second time gives nothing back
	_, err = open()
	require.NoError(t, err)
	_, err = open()
	require.Error(t, err)
}
