package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/ententehq/entente/cmd/entente/demo"
)

func (a *app) demoCommand() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "demo [--once]",
		Short: "Show two federated regions on this machine",
		Long: `Start two regions of three members each on this machine, federate them, and show a workload of one call the
nearest instance of a service, across regions when it has to, verified on both sides by exchanged bundles.

It stays up for looking around until it is interrupted; with --once it checks itself and ends. Either way it cleans
up after itself.`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.flags.output == outputYAML || a.flags.output == outputJSON && !once {
				return usagef("--output %s: the demo prints text, or with --once json", a.flags.output)
			}
			executable, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this executable, of which the demo starts members: %w", err)
			}
			err = demo.Run(cmd.Context(), demo.Options{
				Once: once, JSON: a.flags.output == outputJSON, Stdout: a.stdout, Stderr: a.stderr, Executable: executable,
			})
			switch {
			case errors.Is(err, demo.ErrFailed):
				return silentError{err} // it has said what failed
			case errors.Is(err, context.Canceled) && !once:
				return nil
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the last step, with exit status 0 only if every step held")
	return cmd
}
