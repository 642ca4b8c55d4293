package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/ententehq/entente/node"
)

// versionReport is what this binary is.
type versionReport struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  arguments(),
		RunE: func(*cobra.Command, []string) error {
			v := versionReport{Version: node.Version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
			return a.print(v, func(t *table) {
				t.otherwise("%s", fmt.Sprintf("entente %s (%s, %s/%s)", v.Version, v.Go, v.OS, v.Arch))
			})
		},
	}
}
