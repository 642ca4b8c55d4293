package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/cmd/entente/demo"
)

func demoCommand(env *cli.Env) *cobra.Command {
	var once, apart bool
	cmd := &cobra.Command{
		Use:   "demo [--once] [--apart]",
		Short: "Show two federated regions on this machine",
		Long: `Start two regions of three members each on this machine, federate them, and show a workload of one
call the nearest instance of a service, in the other region where necessary, verified on both sides by exchanged
bundles.

The demo runs until it is interrupted; with --once it checks itself and ends. Either way it removes what it made.
With --apart it only forms the two regions, and leaves it to you to federate them.`,
		Example: `  entente demo
  entente demo --apart
  entente demo --once -o json`,
		Args: cli.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if env.Output == cli.OutputYAML || env.Output == cli.OutputJSON && !once {
				return cli.Usagef("--output %s: the demo prints text, or JSON with --once", env.Output)
			}
			executable, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this executable, which the demo starts as members: %w", err)
			}
			err = demo.Run(cmd.Context(), demo.Options{
				Once: once, Apart: apart, JSON: env.Output == cli.OutputJSON,
				Stdout: env.Stdout, Stderr: env.Stderr, Executable: executable,
			})
			switch {
			case errors.Is(err, demo.ErrFailed):
				return cli.Silent{Err: err} // the demo has printed what failed
			case errors.Is(err, context.Canceled) && !once:
				return nil
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the last step, with exit status 0 only if every step held")
	cmd.Flags().BoolVar(&apart, "apart", false, "only form the two regions, and leave them for you to federate")
	return cmd
}
