package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	xdscreds "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/xds"
)

// The programs of the xDS tests. They are processes of their own, since gRPC reads its bootstrap file, and whether it
// may read bundle maps, once a process. They know xDS and nothing of Entente.
const (
	childRole   = "E2E_CHILD"
	childServer = "server"
	childClient = "client"
	// childTarget is what the client dials, or where the server listens.
	childTarget = "E2E_TARGET"
)

// runChild is the life of such a program. It ends with its standard input, and so with the test.
func runChild(role string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		var b [1]byte
		_, _ = os.Stdin.Read(b[:])
		stop()
	}()
	var err error
	if role == childServer {
		err = serveHealth(ctx, os.Getenv(childTarget))
	} else {
		err = callOn(ctx, os.Getenv(childTarget))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// serveHealth serves the health service with the credentials that xDS names.
func serveHealth(ctx context.Context, address string) error {
	creds, err := xdscreds.NewServerCredentials(xdscreds.ServerOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		return err
	}
	server, err := xds.NewGRPCServer(
		grpc.Creds(creds),
		xds.ServingModeCallback(func(_ net.Addr, mode xds.ServingModeChangeArgs) {
			fmt.Println("mode", mode.Mode, mode.Err)
		}),
	)
	if err != nil {
		return err
	}
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		server.GracefulStop()
	}()
	return server.Serve(listener)
}

// callOn calls without end, and prints a line about each call: which address answered and who that was, or the error.
func callOn(ctx context.Context, target string) error {
	creds, err := xdscreds.NewClientCredentials(xdscreds.ClientOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := healthpb.NewHealthClient(conn)
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-pace.C:
		}
		var from peer.Peer
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		_, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&from))
		cancel()
		if err != nil {
			fmt.Printf("error %q\n", err.Error())
			continue
		}
		who := "nobody"
		if info, ok := from.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
			who = info.State.PeerCertificates[0].URIs[0].String()
		}
		fmt.Println("ok", from.Addr, who)
	}
}
