package xds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	ads "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/agent/discovery"
	"github.com/ententehq/entente/agent/xds"
	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node/xdsbootstrap"
)

// bundleFile is the file of 'entente svid x509' with the authorities of the SVID's trust domain.
const bundleFile = "bundle.pem"

func relayCommand(env *cli.Env) *cobra.Command {
	var dir, listen string
	var maxStale time.Duration
	cmd := &cobra.Command{
		Use:   "relay --listen SOCKET --dir DIR --address HOST:PORT",
		Short: "Serve the xDS streams of programs from a member, and from another when it is lost",
		Long: `Listen at a Unix socket (mode 0600) and serve xDS there from a member, over mutual TLS with the
SVID in --dir, which 'entente svid x509 --watch --dir DIR' keeps fresh. Name the socket with 'entente xds bootstrap
--relay SOCKET'.

Give --address all members, separated by commas: when the member is lost, or sends nothing for two seconds, the relay
uses another one, and its programs notice nothing. While no member answers it keeps what it has, and serves programs
that start, but offers no instances of foreign domains after --max-stale, since their trust may have been suspended.
gRPC alone notices a member that is frozen, or whose host lost its power,
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
				return relay(ctx, listen, member.Conn(), xds.Config{
					MaxStale: maxStale, Logger: hclog.New(&hclog.LoggerOptions{Output: env.Stderr}),
				})
			})(cmd, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "`FOLDER` with the SVID, which 'entente svid x509 --watch' keeps fresh")
	f.DurationVar(&maxStale, "max-stale", xds.DefaultMaxStale,
		"for how long instances of foreign domains are kept while no member can be reached")
	f.StringVar(&listen, "listen", "", "Unix `SOCKET` to listen at; a stale one is replaced")
	return cmd
}

// relay serves xDS at a Unix socket, with the rights of conn, until ctx ends.
func relay(ctx context.Context, path string, conn grpc.ClientConnInterface, cfg xds.Config) error {
	listener, err := listenUnix(path)
	if err != nil {
		return err
	}
	if err := relayAt(ctx, listener, conn, cfg); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve at %s: %w", path, err)
	}
	return ctx.Err()
}

// relayAt serves at a listener, which it closes at the end.
func relayAt(ctx context.Context, listener net.Listener, conn grpc.ClientConnInterface, cfg xds.Config) error {
	server := grpc.NewServer(grpc.MaxConcurrentStreams(maxRelayed))
	to := xds.New(cfg)
	defer to.Close()
	handler := to.Open(func() (grpc.ClientConnInterface, func(), error) { return conn, func() {}, nil })
	ads.RegisterAggregatedDiscoveryServiceServer(
		server, xds.Server{Handler: func(string) discovery.Handler { return handler }},
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
