// Package server has the commands that run a member and check its configuration.
package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node"
	"github.com/ententehq/entente/node/config"
)

// Command returns the command.
func Command(env *cli.Env) *cobra.Command {
	var file string
	var bootstrap, dev bool
	cmd := &cobra.Command{
		Use:   "server --config FILE [--bootstrap] | --dev",
		Short: "Run a member",
		Long: `Run a member until it is interrupted.

A cluster is formed once, by its first member with --bootstrap. Others join it by the join block of their
configuration, with a token from 'entente cluster join-token'. From then on a member needs neither.

--dev runs a cluster of one member for experiments: self-signed, on the default ports of this machine, with its data
in a temporary folder that is removed at the end.`,
		Args: cli.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case dev && (file != "" || bootstrap):
				return cli.Usagef("--dev has its own configuration: leave out --config and --bootstrap")
			case dev:
				return runDev(cmd.Context(), env)
			case file == "":
				return cli.Usagef("--config is missing: name the configuration file, or give --dev")
			}
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			return node.Run(cmd.Context(), cfg, node.Options{Bootstrap: bootstrap, LogOutput: env.Stderr})
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "configuration `FILE`")
	f.BoolVar(&bootstrap, "bootstrap", false, "form a new cluster of this member")
	f.BoolVar(&dev, "dev", false, "run a cluster of one member in a temporary folder")
	return cmd
}

// runDev runs a cluster of one member in a temporary folder.
func runDev(ctx context.Context, env *cli.Env) (err error) {
	dir, err := os.MkdirTemp("", "entente-dev-")
	if err != nil {
		return fmt.Errorf("make a folder for --dev: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg, err := config.Dev(dir)
	if err != nil {
		return err
	}
	err = node.Run(ctx, cfg, node.Options{Bootstrap: true, LogOutput: env.Stderr, Started: func() {
		fmt.Fprintf(
			env.Stdout, "In another terminal:\n\n  export ENTENTE_SOCKET=%s\n  entente cluster members\n\n",
			filepath.Join(dir, node.SocketName),
		)
	}})
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w; --dev uses the default ports: give --config to use others", err)
	}
	return err
}
