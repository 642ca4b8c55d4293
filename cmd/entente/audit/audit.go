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
	"github.com/ententehq/entente/node/inspect"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("audit", "The audit log", tailCommand(env), verifyCommand(env))
}

func verifyCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE...",
		Short: "Check that no line of audit logs was changed, removed or inserted, without a member",
		Long: `Check the audit log of a member: each line names the SHA-256 of the line before it, and FILE.end that of
the last one.

Name the files of one member, the oldest first: rotated ones, and audit.log in its data folder. Files that were
compressed must be decompressed.`,
		Example: `  entente audit verify /var/lib/entente/audit.log`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			v, err := inspect.Audit(args...)
			if err != nil {
				return err
			}
			return env.Print(v, func(t *cli.Table) {
				t.Field("lines", v.Lines)
				t.Field("lines of earlier versions, which nothing covers", v.Unchained)
				t.Field("lines that a full disk cut off", v.Fragments)
			})
		},
	}
}

func tailCommand(env *cli.Env) *cobra.Command {
	var lines uint32
	var follow bool
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show the latest events in the audit log of one member",
		Long: `Show the latest events in the audit log of the member that the command calls. Changes of the whole
cluster are in every log; signatures and refused calls are in the log of the member that made them. With
--follow new events are printed until the command is interrupted.`,
		Example: `  entente audit tail --lines 3
  entente audit tail --follow -o json`,
		Args: cli.Arguments(),
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
