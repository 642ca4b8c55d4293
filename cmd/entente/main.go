// Command entente is a member of a trust-federation cluster, and the way to speak to one.
//
// Each file is one command: it parses, calls and prints. What a member is, is in package node; what it can be asked, in
// api/entente/v1. The rest is shared by the commands: root.go is the command line as a whole, client.go the connection to
// a member, print.go and table.go what is printed, errors.go what is said when something fails.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/ententehq/entente/cmd/entente/demo"
)

func main() {
	demo.EndWithParent()
	os.Exit(run())
}

// run is the whole command, with this process's arguments and streams; it returns the exit status.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}
	return a.run(ctx, os.Args[1:])
}
