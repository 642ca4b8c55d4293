// Command generate writes the dashboards as JSON into a folder.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/ententehq/entente/deploy/monitoring"
)

func main() {
	for _, d := range monitoring.Dashboards() {
		content, err := d.JSON()
		if err == nil {
			err = os.WriteFile(filepath.Join(os.Args[1], d.Name+".json"), content, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "Error:", err)
			os.Exit(1)
		}
	}
}
