package client

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/clocktest"
)

// TestSilenceEndsAConnection: a connection whose other side sends something now and then stays, and one whose other
// side sends nothing ends within two seconds.
func TestSilenceEndsAConnection(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		conn := silenceConn{here}
		go func() {
			for range 10 {
				<-time.After(time.Second) // as a member pings
				_, _ = there.Write([]byte{1})
			}
		}()
		var b [1]byte
		for range 10 {
			_, err := conn.Read(b[:])
			require.NoError(t, err)
		}
		quiet := time.Now()
		_, err := conn.Read(b[:])
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Less(t, time.Since(quiet), 2*time.Second)
	})
}
