// Package server has the commands that run a member and check its configuration.
package server

import (
	"errors"
	"os"
	"time"

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
configuration, with a token from 'entente cluster join-token ID'. From then on a member needs neither.

SIGHUP reopens the audit log and reads the configuration file again. The log level, the limits of issuing and the
certificate files of the bundle endpoint change at once; if anything else differs, nothing changes and the log names
what needs a restart. Under systemd the member reports when it is ready, its status, and that it answers.

--dev runs a cluster of one member for experiments: self-signed, on the default ports of this machine or on free ones if
those are in use, with its data in a temporary folder that is removed at the end. It prints a block of commands for
another terminal.`,
		Example: `  entente server --config /etc/entente/entente.hcl --bootstrap
  entente server --dev`,
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
			return exiting(node.Run(cmd.Context(), cfg, node.Options{
				Bootstrap: bootstrap, LogOutput: env.Stderr,
				Reload: func() (*config.Config, error) { return config.Load(file) },
			}))
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "configuration `FILE`")
	f.BoolVar(&bootstrap, "bootstrap", false, "form a new cluster of this member")
	f.BoolVar(&dev, "dev", false, "run a cluster of one member in a temporary folder")
	return cmd
}

// printLimit is how long the last line of a member that hangs may take.
const printLimit = 2 * time.Second

// exiting returns an error to be printed. A member that must not be started again has an exit status of its own. If a
// part of the member hangs, the process exits soon even if printing hangs too: standard error may be a file on the same
// disk.
func exiting(err error) error {
	if errors.Is(err, node.ErrRemoved) || errors.Is(err, node.ErrAbandoned) {
		return cli.PreconditionError(err)
	}
	if errors.Is(err, node.ErrUnfinished) {
		time.AfterFunc(printLimit, func() { os.Exit(1) })
	}
	return err
}
