package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node"
	"github.com/ententehq/entente/node/config"
)

// runDev runs a cluster of one member in a temporary folder.
func runDev(ctx context.Context, env *cli.Env) (err error) {
	dir, err := os.MkdirTemp("", "entente-dev-")
	if err != nil {
		return fmt.Errorf("make a folder for --dev: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	addresses, err := devAddresses()
	if err != nil {
		return err
	}
	cfg, err := config.Dev(dir, addresses)
	if err != nil {
		return err
	}
	executable, err := os.Executable()
	if err != nil {
		executable = os.Args[0]
	}
	socket := filepath.Join(dir, node.SocketName)
	var printing sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	err = node.Run(ctx, cfg, node.Options{Bootstrap: true, LogOutput: env.Stderr, Started: func() {
		printing.Go(func() {
			if awaitSigning(ctx, socket) == nil {
				printDev(env.Stdout, executable, socket, cfg)
			}
		})
	}})
	cancel()
	printing.Wait()
	return err
}

// signingInterval is how often a member that has just started is checked.
const signingInterval = 50 * time.Millisecond

// awaitSigning waits until a member leads and has signing authorities, so that every command can be carried out.
func awaitSigning(ctx context.Context, socket string) error {
	member, err := client.New(ctx, client.WithAdminSocket(socket))
	if err != nil {
		return err
	}
	defer func() { _ = member.Close() }()
	tick := time.NewTicker(signingInterval)
	defer tick.Stop()
	for {
		list, err := member.Authorities().ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{})
		active := 0
		for _, a := range list.GetAuthorities() {
			if a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE {
				active++
			}
		}
		if err == nil && active == 2 { // one for X.509-SVIDs, one for JWT-SVIDs
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// devAddresses returns the default addresses, or free ones if another process listens on one of those.
func devAddresses() (config.DevAddresses, error) {
	addresses := config.DefaultAddresses()
	chosen := []*string{&addresses.Member, &addresses.BundleEndpoint, &addresses.Operations}
	free := true
	for _, address := range chosen {
		l, err := net.Listen("tcp", *address)
		if err != nil {
			free = false
			continue
		}
		_ = l.Close()
	}
	if free {
		return addresses, nil
	}
	for _, address := range chosen {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return config.DevAddresses{}, fmt.Errorf("find a free port for --dev: %w", err)
		}
		defer func() { _ = l.Close() }()
		*address = l.Addr().String()
	}
	return addresses, nil
}

// printDev prints what to copy into another terminal.
func printDev(out io.Writer, executable, socket string, cfg *config.Config) {
	domain := cfg.Cluster.TrustDomain
	fmt.Fprintf(out, `The cluster %s of one member runs until Ctrl-C. In another terminal:

  alias entente=%s
  export ENTENTE_SOCKET=%s
  export DEV_ENDPOINT=https://%s/bundles/%s

  entente status
  entente svid x509 --spiffe-id spiffe://%s/api --dir api
  curl -k $DEV_ENDPOINT

`, cfg.Cluster.Name, strconv.Quote(executable), strconv.Quote(socket), cfg.BundleEndpoint.Listen, domain, domain)
}
