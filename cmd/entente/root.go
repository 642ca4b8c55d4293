package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// app is one run of the command.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	flags          globalFlags
}

// globalFlags go with every command.
type globalFlags struct {
	output                         string
	address, socket                string
	certFile, keyFile, bundleFile  string
	timeout                        time.Duration
	addressSet, socketSet, timeSet bool
}

// run runs the command line and returns the exit status: 0, 1 when it failed, 2 when it was not understood.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return a.explain(cmd, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "entente",
		Short: "Federate trust between clusters",
		Long: `Entente federates trust between clusters: it is the authority for SPIFFE trust domains, publishes their
bundles, keeps the bundles of the domains it federates with, and says which instance of a service to call.

Commands ask a member through its admin socket, as its own user or root, or with --address over mutual TLS,
as the SPIFFE ID in --cert. 'entente demo' shows everything on one machine.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noSuchCommand,
		RunE:          showHelp,
	}
	root.SuggestionsMinimumDistance = suggestionDistance
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(flagError)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		// An instance has an --address too, which hides this one.
		whom := cmd.Flags().Lookup("address")
		a.flags.addressSet = whom == root.PersistentFlags().Lookup("address") && whom.Changed
		a.flags.socketSet = cmd.Flags().Changed("socket")
		a.flags.timeSet = cmd.Flags().Changed("timeout")
		if !slices.Contains(outputs, a.flags.output) {
			return usagef("--output %q is none of %s", a.flags.output, strings.Join(outputs, ", "))
		}
		if a.flags.timeout <= 0 {
			return usagef("--timeout %s is no time to wait: give one above zero, such as 10s", a.flags.timeout)
		}
		return nil
	}
	f := root.PersistentFlags()
	f.StringVarP(&a.flags.output, "output", "o", outputTable, "how to print: table, json or yaml")
	f.StringVar(&a.flags.address, "address", "", "ask the member at this HOST:PORT (ENTENTE_ADDRESS); goes with --cert, --key and --bundle")
	f.StringVar(&a.flags.socket, "socket", "", "ask through this admin socket (ENTENTE_SOCKET; default "+defaultSocket+")")
	f.StringVar(&a.flags.certFile, "cert", "", "X509-SVID to present with --address, a PEM file (ENTENTE_CERT)")
	f.StringVar(&a.flags.keyFile, "key", "", "private key of --cert, a PEM file (ENTENTE_KEY)")
	f.StringVar(&a.flags.bundleFile, "bundle", "", "X.509 authorities of the cluster's home trust domain, a PEM file (ENTENTE_BUNDLE)")
	f.DurationVar(&a.flags.timeout, "timeout", defaultTimeout, "how long to wait for an answer")
	root.AddCommand(
		a.serverCommand(), a.validateCommand(), a.clusterCommand(), a.domainCommand(), a.bundleCommand(), a.federationCommand(),
		a.authorityCommand(), a.svidCommand(), a.serviceCommand(), a.ruleCommand(), a.hintCommand(), a.xdsCommand(), a.accessCommand(), a.auditCommand(), a.vaultCommand(),
		a.demoCommand(), a.versionCommand(),
	)
	usageAsWritten(root)
	return root
}

// usageAsWritten keeps cobra from adding to the usage lines, which name their flags already.
func usageAsWritten(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = strings.Contains(cmd.Use, "--")
	for _, c := range cmd.Commands() {
		usageAsWritten(c)
	}
}

// suggestionDistance is how many letters a command may be mistyped by to be recognized; cobra's own choice.
const suggestionDistance = 2

// group is a noun: a command that has others and does nothing itself.
func group(noun, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: noun, Short: short, Args: noSuchCommand, RunE: showHelp}
	cmd.SuggestionsMinimumDistance = suggestionDistance
	cmd.AddCommand(verbs...)
	return cmd
}

func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := "there is no command '" + cmd.CommandPath() + " " + args[0] + "'"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		message += ", but '" + cmd.CommandPath() + " " + near[0] + "'"
	}
	return &usageError{message}
}

// arguments takes exactly the named arguments. A name in brackets may be left out.
func arguments(names ...string) cobra.PositionalArgs {
	least := 0
	for _, n := range names {
		if !strings.HasPrefix(n, "[") {
			least++
		}
	}
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("%s is missing", names[len(args)])
		case len(args) > len(names) && len(names) == 0:
			return usagef("%q is too much: '%s' takes no argument", args[0], cmd.CommandPath())
		case len(args) > len(names):
			return usagef("%q is too much: '%s' takes %s", args[len(names)], cmd.CommandPath(), strings.Join(names, " "))
		}
		for i, arg := range args {
			if names[i] == "DOMAIN" || names[i] == "[DOMAIN]" {
				if err := bareDomain("DOMAIN", arg); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// bareDomain refuses a trust domain that is written as a SPIFFE ID or a URL.
func bareDomain(what, name string) error {
	_, rest, found := strings.Cut(name, "://")
	if !found {
		return nil
	}
	bare, _, _ := strings.Cut(rest, "/")
	if bare == "" {
		bare = "us.example.org"
	}
	return usagef("%s %q has a scheme: write the name of the trust domain alone, such as %s", what, name, bare)
}

// optional is the one argument, or empty when it was left out.
func optional(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
