package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node/xdsbootstrap"
)

// bundleFile is the file of 'entente svid x509' with the authorities of the SVID's trust domain.
const bundleFile = "bundle.pem"

func relayCommand(env *cli.Env) *cobra.Command {
	var dir, listen string
	cmd := &cobra.Command{
		Use:   "relay --listen SOCKET --dir DIR --address HOST:PORT",
		Short: "Forward the xDS streams of programs to a member, and move on to another when it is lost",
		Long: `Listen at a Unix socket (mode 0600) and forward its xDS streams to a member, over mutual TLS with the
SVID in --dir, which 'entente svid x509 --watch --dir DIR' keeps fresh. Name the socket with 'entente xds bootstrap
--relay SOCKET'.

Give --address all members, separated by commas: when the member is lost, or sends nothing for two seconds, the relay
uses another one, and its programs follow. gRPC alone notices a member that is frozen, or whose host lost its power,
only after more than five minutes. gRPC on Node.js needs the relay in any case: it can only connect to a control plane
without credentials.

Every user of the socket has the rights of the SVID. --bundle names the authorities of the cluster's home trust
domain, if the SVID is in another domain (default: DIR/bundle.pem).`,
		Args: cli.Arguments(),
		Example: `  entente xds relay --listen /run/shop/xds.sock --dir /run/shop/svid \
    --address eu-1.example.org:7440,eu-2.example.org:7440,eu-3.example.org:7440`,
		PreRunE: cli.Required("listen", "dir"),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := env.UseSVID(
				filepath.Join(
					dir, xdsbootstrap.SVIDFile), filepath.Join(dir, xdsbootstrap.KeyFile),
				filepath.Join(dir, bundleFile),
			)
			if err != nil {
				return err
			}
			return env.Stream(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
				return relay(ctx, listen, member.Conn())
			})(cmd, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "`FOLDER` with the SVID, which 'entente svid x509 --watch' keeps fresh")
	f.StringVar(&listen, "listen", "", "Unix `SOCKET` to listen at; a stale one is replaced")
	return cmd
}

// relay serves xDS at a Unix socket, by forwarding each stream over conn, until ctx ends.
func relay(ctx context.Context, path string, conn grpc.ClientConnInterface) error {
	listener, err := listenUnix(path)
	if err != nil {
		return err
	}
	if err := relayAt(ctx, listener, conn); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve at %s: %w", path, err)
	}
	return ctx.Err()
}

// relayAt serves at a listener, which it closes at the end.
func relayAt(ctx context.Context, listener net.Listener, conn grpc.ClientConnInterface) error {
	server := grpc.NewServer(grpc.MaxConcurrentStreams(maxRelayed))
	discovery.RegisterAggregatedDiscoveryServiceServer(
		server, relayed{to: discovery.NewAggregatedDiscoveryServiceClient(conn)},
	)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(listener)
}

// maxRelayed bounds the streams of a connection. A client has one.
const maxRelayed = 16

// listenUnix listens at a socket that only this user can use. A stale socket is replaced.
func listenUnix(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		if conn, err := net.Dial("unix", path); err == nil {
			return nil, errors.Join(
				fmt.Errorf("another process listens at %s: stop it, or name another --listen", path), conn.Close(),
			)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("replace the stale socket: %w", err)
		}
	}
	// The socket is made with its final mode: a user who connects before a change of the mode would stay connected.
	masked := unix.Umask(0o777 &^ cli.SecretMode)
	listener, err := net.Listen("unix", path)
	unix.Umask(masked)
	if err != nil {
		return nil, fmt.Errorf(
			"--listen %s: %w: name a socket in a folder that this user may write to", path, cli.Cause(err),
		)
	}
	return listener, nil
}

// relayed is the aggregated discovery service of another server.
type relayed struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	to discovery.AggregatedDiscoveryServiceClient
}

// StreamAggregatedResources forwards a state-of-the-world stream. While no member can be reached, the stream waits: its
// client would otherwise pause for minutes between its attempts.
func (r relayed) StreamAggregatedResources(
	s discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer,
) error {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	up, err := r.to.StreamAggregatedResources(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	return forward(s, up)
}

// DeltaAggregatedResources forwards a delta stream.
func (r relayed) DeltaAggregatedResources(s discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	up, err := r.to.DeltaAggregatedResources(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	return forward(s, up)
}

// forward copies messages both ways until the other server ends the stream, or the client is gone.
func forward[Request, Answer any](
	down grpc.BidiStreamingServer[Request, Answer], up grpc.BidiStreamingClient[Request, Answer],
) error {
	go func() { // it ends when this call does
		for {
			m, err := down.Recv()
			if err == nil {
				err = up.Send(m)
			}
			if err != nil {
				_ = up.CloseSend()
				return
			}
		}
	}()
	for {
		m, err := up.Recv()
		if err == nil {
			err = down.Send(m)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
