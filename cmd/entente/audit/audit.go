// Package audit has the commands that read the audit log.
package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("audit", "The audit log", tailCommand(env))
}

func tailCommand(env *cli.Env) *cobra.Command {
	var lines uint32
	var follow bool
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show the latest events in the audit log of one member",
		Args:  cli.Arguments(),
		RunE: env.Stream(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			stream, err := member.Audit().TailAudit(ctx, &ententev1.TailAuditRequest{Lines: lines, Follow: follow})
			if err != nil {
				return err
			}
			for {
				event, err := stream.Recv()
				switch {
				case errors.Is(err, io.EOF):
					return nil
				case err != nil:
					return err
				}
				if err := env.PrintOne(event, func() string { return eventLine(event) }); err != nil {
					return err
				}
			}
		}),
	}
	const usual = 20
	cmd.Flags().Uint32Var(&lines, "lines", usual, "how many of the latest events to print first, 1000 at most")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "print new events until interrupted")
	return cmd
}

// eventLine returns an event as a line of text.
func eventLine(e *ententev1.AuditEvent) string {
	parts := []string{e.GetTime().AsTime().UTC().Format(time.RFC3339), e.GetMember(), e.GetResult(), e.GetAction()}
	if e.GetObject() != "" {
		parts = append(parts, e.GetObject())
	}
	parts = append(parts, "by "+e.GetCaller())
	if e.GetRevision() != 0 {
		parts = append(parts, fmt.Sprintf("revision %d", e.GetRevision()))
	}
	if e.GetDetail() != "" {
		parts = append(parts, e.GetDetail())
	}
	return cli.Printable(strings.Join(parts, "  "))
}
