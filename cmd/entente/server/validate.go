package server

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node/config"
)

// ValidateCommand returns the command that checks a configuration.
func ValidateCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE",
		Short: "Check a configuration file without starting anything",
		Args:  cli.Arguments("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := config.Load(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stdout, "%s is valid: member %s of cluster %s, home trust domain %s\n",
				args[0], cfg.Member.ID, cfg.Cluster.Name, cfg.Cluster.TrustDomain.Name())
			return nil
		},
	}
}
