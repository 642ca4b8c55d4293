package server

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/preflight"
)

// ValidateCommand returns the command that checks a configuration.
func ValidateCommand(env *cli.Env) *cobra.Command {
	var effective bool
	cmd := &cobra.Command{
		Use:   "validate FILE [--effective]",
		Short: "Check a configuration file without starting anything",
		Long: `Check a configuration file without starting anything: the file itself, and the files and the variables of
the environment that it names, as a start would. Run it as the user and with the environment of the server. It prints
how long a peer can be cut off and still verify what is signed meanwhile, and how the signing keys are kept.

--effective prints the configuration with all defaults instead, as a file that can be used. It contains no secret, but
the place of each. A secret that is in the file itself is printed as "(hidden)", which the server refuses.`,
		Example: `  entente validate entente.hcl
  entente validate entente.hcl --effective -o json`,
		Args: cli.Arguments("FILE"),
		RunE: func(_ *cobra.Command, args []string) error { return validate(env, args[0], effective) },
	}
	cmd.Flags().BoolVar(&effective, "effective", false, "print the configuration with all defaults")
	return cmd
}

// validation is the result of the check of a valid configuration, as JSON.
type validation struct {
	File        string   `json:"file"`
	Member      string   `json:"member"`
	Cluster     string   `json:"cluster"`
	TrustDomain string   `json:"trust_domain"`
	Report      []string `json:"report"`
	Warnings    []string `json:"warnings"`
	Effective   string   `json:"effective,omitempty"`
}

func validate(env *cli.Env, file string, effective bool) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	if err := preflight.Check(cfg); err != nil {
		return inFile(file, err)
	}
	v := validation{
		File: file, Member: cfg.Member.ID, Cluster: cfg.Cluster.Name, TrustDomain: cfg.Cluster.TrustDomain.Name(),
		Report: cfg.Report(), Warnings: append(cfg.Warnings(), preflight.Warnings(cfg, time.Now())...),
	}
	if effective {
		v.Effective = string(cfg.Effective())
	}
	if env.Output != cli.OutputTable {
		return env.Print(v, nil)
	}
	if effective {
		fmt.Fprint(env.Stdout, v.Effective)
		for _, line := range v.Warnings {
			fmt.Fprintf(env.Stderr, "warning: %s\n", line)
		}
		return nil
	}
	fmt.Fprintf(env.Stdout, "%s is valid: member %s of cluster %s, home trust domain %s\n",
		file, v.Member, v.Cluster, v.TrustDomain)
	for _, line := range v.Report {
		fmt.Fprintln(env.Stdout, line)
	}
	for _, line := range v.Warnings {
		fmt.Fprintf(env.Stdout, "warning: %s\n", line)
	}
	return nil
}

// inFile puts the name of the file before each line of an error.
func inFile(file string, err error) error {
	var lines []error
	for line := range strings.Lines(err.Error()) {
		lines = append(lines, fmt.Errorf("%s: %s", file, strings.TrimSuffix(line, "\n")))
	}
	return errors.Join(lines...)
}
