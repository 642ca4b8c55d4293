package cli

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	// defaultSocket is the admin socket of a member with the default data folder.
	defaultSocket  = "/var/lib/entente/admin.sock"
	defaultTimeout = 10 * time.Second
)

// Env is one run of the command: its streams, its environment and the flags that go with every command.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string

	// Output is one of the values of --output.
	Output string
	// Timeout is how long a call may take. TimeoutSet reports whether it was given.
	Timeout    time.Duration
	TimeoutSet bool

	address, socket               string
	addressSet, socketSet         bool
	certFile, keyFile, bundleFile string
}

// Run runs a command line and returns the exit status: 0, 1 after an error, 2 if the command line is invalid.
func (env *Env) Run(ctx context.Context, root *cobra.Command, args []string) int {
	env.prepare(root)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return env.explain(cmd, err)
}

// prepare adds the flags and the settings of every command.
func (env *Env) prepare(root *cobra.Command) {
	root.SilenceUsage, root.SilenceErrors = true, true
	root.SuggestionsMinimumDistance = suggestionDistance
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SetFlagErrorFunc(flagError)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		// The --address of an instance hides the one of the member.
		address := cmd.Flags().Lookup("address")
		env.addressSet = address == root.PersistentFlags().Lookup("address") && address.Changed
		env.socketSet = cmd.Flags().Changed("socket")
		env.TimeoutSet = cmd.Flags().Changed("timeout")
		if !slices.Contains(outputs, env.Output) {
			return Usagef("--output %q is not one of %s", env.Output, strings.Join(outputs, ", "))
		}
		if env.Timeout <= 0 {
			return Usagef("--timeout %s must be above zero, such as 10s", env.Timeout)
		}
		return nil
	}
	f := root.PersistentFlags()
	f.StringVarP(&env.Output, "output", "o", OutputTable, "output format: table, json or yaml")
	f.StringVar(&env.address, "address", "",
		"connect to the member at HOST:PORT[,HOST:PORT…], tried in order (ENTENTE_ADDRESS); needs --cert, --key "+
			"and --bundle")
	f.StringVar(&env.socket, "socket", "",
		"connect through this admin socket (ENTENTE_SOCKET; default "+defaultSocket+")")
	f.StringVar(&env.certFile, "cert", "", "X509-SVID to present with --address, a PEM file (ENTENTE_CERT)")
	f.StringVar(&env.keyFile, "key", "", "private key of --cert, a PEM file (ENTENTE_KEY)")
	f.StringVar(&env.bundleFile, "bundle", "",
		"X.509 authorities of the cluster's home trust domain, a PEM file (ENTENTE_BUNDLE)")
	f.DurationVar(&env.Timeout, "timeout", defaultTimeout, "how long a call may take")
	keepUsageLines(root)
}

// keepUsageLines keeps cobra from adding "[flags]" to usage lines that name their flags.
func keepUsageLines(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = strings.Contains(cmd.Use, "--")
	for _, c := range cmd.Commands() {
		keepUsageLines(c)
	}
}
