// Command entente is a member of a trust-federation cluster, and the command line of its operators.
//
// Each noun has a package below this one, with a function Command; package cli has what they share. Package node is the
// member, package client the connection to one. This package assembles the command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/ententehq/entente/cmd/entente/access"
	"github.com/ententehq/entente/cmd/entente/agent"
	"github.com/ententehq/entente/cmd/entente/audit"
	"github.com/ententehq/entente/cmd/entente/authority"
	"github.com/ententehq/entente/cmd/entente/bundle"
	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/cmd/entente/cluster"
	"github.com/ententehq/entente/cmd/entente/complete"
	"github.com/ententehq/entente/cmd/entente/debug"
	"github.com/ententehq/entente/cmd/entente/demo"
	"github.com/ententehq/entente/cmd/entente/domain"
	"github.com/ententehq/entente/cmd/entente/entry"
	"github.com/ententehq/entente/cmd/entente/federation"
	"github.com/ententehq/entente/cmd/entente/hint"
	"github.com/ententehq/entente/cmd/entente/rule"
	"github.com/ententehq/entente/cmd/entente/server"
	"github.com/ententehq/entente/cmd/entente/service"
	"github.com/ententehq/entente/cmd/entente/status"
	"github.com/ententehq/entente/cmd/entente/svid"
	"github.com/ententehq/entente/cmd/entente/sync"
	"github.com/ententehq/entente/cmd/entente/vault"
	"github.com/ententehq/entente/cmd/entente/xds"
)

func main() {
	demo.EndWithParent()
	os.Exit(run())
}

// run runs the command with the arguments and streams of this process, and returns the exit status.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	env := &cli.Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		Terminal: isatty.IsTerminal(os.Stdin.Fd())}
	return env.Run(ctx, rootCommand(env), os.Args[1:])
}

func rootCommand(env *cli.Env) *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "entente",
		Short: "Federate trust between clusters",
		Long: `Entente federates trust between clusters: it is the authority for SPIFFE trust domains, publishes their
bundles, keeps the bundles of the domains that it federates with, and answers which instance of a service to call.

Commands connect to a member through its admin socket, as its own user or root, or with --address over mutual TLS,
as the SPIFFE ID in --cert. 'entente demo' shows everything on one machine.`,
		Args: cli.NoSuchCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			if version {
				return printVersion(env)
			}
			return cli.ShowHelp(cmd, args)
		},
	}
	root.Flags().BoolVar(&version, "version", false, "print the version")
	root.AddCommand(
		server.Command(env), server.ValidateCommand(env), status.Command(env), cluster.Command(env),
		domain.Command(env), bundle.Command(env), sync.Command(env),
		federation.Command(env), authority.Command(env), svid.Command(env), service.Command(env), rule.Command(env),
		hint.Command(env), xds.Command(env), agent.Command(env), entry.Command(env), access.Command(env),
		audit.Command(env), vault.Command(env), debug.Command(env),
		demoCommand(env), versionCommand(env),
	)
	env.Prepare(root)
	complete.Add(env, root)
	return root
}
