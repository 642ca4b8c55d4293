package main

import (
	"runtime"

	"github.com/spf13/cobra"

	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node"
)

// versionReport describes this binary.
type versionReport struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func versionCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long: `Print the version of this binary, and what it was built with. The versions of the members are in 'entente
cluster members'.`,
		Example: `  entente version
  entente version -o json`,
		Args: cli.Arguments(),
		RunE: func(*cobra.Command, []string) error { return printVersion(env) },
	}
}

func printVersion(env *cli.Env) error {
	v := versionReport{Version: node.Version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	return env.Print(v, func(t *cli.Table) {
		t.Otherwise("entente %s (%s, %s/%s)", v.Version, v.Go, v.OS, v.Arch)
	})
}
