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
	"google.golang.org/protobuf/types/known/timestamppb"

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
	request := &ententev1.TailAuditRequest{}
	var since, until string
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show the latest events in the audit log of one member, or of all",
		Long: `Show the latest events in the audit log of the member that the command calls. Changes of the whole
cluster are in every log; signatures and refused calls are in the log of the member that made them: --all-members shows
the logs of all, in the order of their times. A member that does not answer is shown as unreachable. With --follow new
events are printed until the command is interrupted.

--actor, --action and --object select events that contain a text, --since and --until a time. A member searches the
latest 1000 events, which it has in memory; its file has every line.`,
		Example: `  entente audit tail --lines 3
  entente audit tail --all-members --actor spiffe://eu.example.org/ci --since 1h
  entente audit tail --follow -o json`,
		Args: cli.Arguments(),
		RunE: env.Stream(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			var err error
			now := time.Now()
			if request.StartTime, err = moment("since", since, now); err != nil {
				return err
			}
			if request.EndTime, err = moment("until", until, now); err != nil {
				return err
			}
			stream, err := member.Audit().TailAudit(ctx, request)
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
	f := cmd.Flags()
	f.Uint32Var(&request.Lines, "lines", usual, "how many of the latest events to print first, 1000 at most")
	f.BoolVarP(&request.Follow, "follow", "f", false, "print new events until interrupted")
	f.BoolVar(&request.AllMembers, "all-members", false, "show the logs of all members")
	f.StringVar(&request.Caller, "actor", "", "only events whose caller contains `TEXT`")
	f.StringVar(&request.Action, "action", "", "only events whose action contains `TEXT`")
	f.StringVar(&request.Object, "object", "", "only events whose object contains `TEXT`")
	f.StringVar(&since, "since", "", "only events from `TIME` on: such as 2026-11-30T16:00:00Z, or 1h for an hour ago")
	f.StringVar(&until, "until", "", "only events before `TIME`")
	return cmd
}

// moment returns the time that a flag names, or nil for none.
func moment(flag, text string, now time.Time) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return timestamppb.New(now.Add(-ago)), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, cli.Usagef("--%s %q is no time: write one such as 2026-11-30T16:00:00Z, or 1h for an hour ago",
			flag, text)
	}
	return timestamppb.New(at), nil
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
