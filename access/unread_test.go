package access_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ententehq/entente/access"
	v1 "github.com/ententehq/entente/api/entente/v1"
)

// unreadable are the credentials of a caller whose connection the guard can close.
type unreadable struct{ as }

type unreadableInfo struct {
	asInfo
	conn net.Conn
}

func (i unreadableInfo) Unread() { _ = i.conn.Close() }

func (u unreadable) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := u.as.ServerHandshake(c)
	return c, unreadableInfo{info.(asInfo), c}, err
}
func (u unreadable) Clone() credentials.TransportCredentials { return u }

// flood sends messages for as long as it may.
type flood struct {
	v1.UnimplementedBundleServiceServer
	message *v1.WatchBundlesResponse
	sent    chan int
}

func (f flood) WatchBundles(_ *v1.WatchBundlesRequest, s grpc.ServerStreamingServer[v1.WatchBundlesResponse]) error {
	for n := 0; ; n++ {
		if err := s.Send(f.message); err != nil {
			f.sent <- n
			return err
		}
	}
}

// TestUnreadStreamsEnd: a caller that was admitted and never reads its watches costs a bounded amount of memory for a
// bounded time, and then its connection is closed.
func TestUnreadStreamsEnd(t *testing.T) {
	const watches, size, most = 8, 16 << 10, 256 << 10
	h := buildWith(t, func(c *access.GuardConfig) { c.SendTimeout = 100 * time.Millisecond })
	f := flood{
		message: &v1.WatchBundlesResponse{Changed: []*v1.Bundle{{Document: make([]byte, size)}}},
		sent:    make(chan int, watches),
	}
	server := grpc.NewServer(append(h.guard.ServerOptions(),
		grpc.Creds(unreadable{as{insecure.NewCredentials(), root}}))...)
	v1.RegisterBundleServiceServer(server, f)
	u := open(t, server)
	for range watches {
		u.watch(v1.BundleService_WatchBundles_FullMethodName)
	}
	for range watches {
		select {
		case n := <-f.sent:
			require.LessOrEqual(t, n*size, most)
		case <-time.After(time.Minute):
			t.Fatal("a watch that is not read goes on")
		}
	}
	for { // what was sent before the end is still there
		_, err := u.framer.ReadFrame()
		var unknown http2.ConnectionError
		if errors.As(err, &unknown) {
			t.Fatalf("the server sent what is no frame: %v", err)
		}
		if err != nil {
			return
		}
	}
}
