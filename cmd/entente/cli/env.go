package cli

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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
	// Terminal reports whether a person can answer on Stdin.
	Terminal bool

	// Output is one of the values of --output.
	Output string
	// Timeout is how long a call may take. TimeoutSet reports whether it was given.
	Timeout    time.Duration
	TimeoutSet bool

	address, socket               string
	addressSet, socketSet         bool
	certFile, keyFile, bundleFile string
}

// Run runs a command line of a root command that Prepare has prepared. It returns the exit status, one of those in
// docs/operating/errors.md.
func (env *Env) Run(ctx context.Context, root *cobra.Command, args []string) int {
	env.Output = outputOf(args)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return env.explain(cmd, err)
}

// outputOf returns the --output of a command line, for the errors of its other flags.
func outputOf(args []string) (output string) {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.ParseErrorsAllowlist.UnknownFlags = true
	f.Usage = func() {}
	f.StringVarP(&output, "output", "o", OutputTable, "")
	if f.Parse(args) != nil {
		return OutputTable // the command itself finds the same error
	}
	return output
}

// Prepare adds the flags and the settings of every command.
func (env *Env) Prepare(root *cobra.Command) {
	root.SilenceUsage, root.SilenceErrors = true, true
	root.SuggestionsMinimumDistance = suggestionDistance
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SetFlagErrorFunc(flagError)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Name() == cobra.ShellCompRequestCmd { // its flags are those of another command, and not complete
			return nil
		}
		env.readFlags(cmd)
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
	FlagValues(root, "output", outputs...)
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
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages ", ".FlagUsagesWrapped 120 "))
	keepUsageLines(root)
}

// readFlags records which of the flags of every command are given.
func (env *Env) readFlags(cmd *cobra.Command) {
	env.addressSet, env.socketSet = cmd.Flags().Changed("address"), cmd.Flags().Changed("socket")
	env.TimeoutSet = cmd.Flags().Changed("timeout")
}

// keepUsageLines keeps cobra from adding "[flags]" to usage lines that name their flags.
func keepUsageLines(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = strings.Contains(cmd.Use, "--")
	for _, c := range cmd.Commands() {
		keepUsageLines(c)
	}
}
