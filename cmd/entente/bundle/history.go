package bundle

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

func historyCommand(env *cli.Env) *cobra.Command {
	var limit int32
	var diff string
	cmd := &cobra.Command{
		Use:   "history DOMAIN",
		Short: "List the versions of a bundle, or describe what changed between two",
		Long: `List the versions of a bundle that the cluster keeps, newest first: the last 100 of a hosted
domain, the last 10 of a foreign one, with the source of each and the state of its signed statement.

With --diff, describe what changed between two of them: '--diff 7..9' from sequence 7 to 9, '--diff ..9' from the
version before 9, '--diff 7..' from 7 to the newest, '--diff ..' between the last two.`,
		Example: `  entente bundle history us.example.org
  entente bundle history us.example.org --diff 7..9`,
		Args: cli.Arguments("DOMAIN"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, cmd *cobra.Command, args []string) error {
			client := member.Bundles()
			if cmd.Flags().Changed("diff") {
				request, err := versionRange(diff)
				if err != nil {
					return err
				}
				request.TrustDomain = args[0]
				answer, err := client.CompareBundleVersions(ctx, request)
				if err != nil {
					return err
				}
				return env.PrintOne(answer, func() string { return differenceLines(answer) })
			}
			answer, err := client.GetBundleHistory(
				ctx, &ententev1.GetBundleHistoryRequest{TrustDomain: args[0], Limit: limit},
			)
			if err != nil {
				return err
			}
			return env.Print(answer, func(t *cli.Table) {
				t.Columns("SEQUENCE", "TIME", "X.509", "JWT", "DIGEST", "STATEMENT", "SOURCE")
				t.Wrap("STATEMENT", "SOURCE")
				for _, v := range answer.GetVersions() {
					t.Row(
						cli.Sequence(v.Sequence), cli.Time(v.GetTime()), counted(v, v.GetX509Authorities()),
						counted(v, v.GetJwtAuthorities()), v.GetDigest()[:min(16, len(v.GetDigest()))],
						statementWord(v), v.GetSource(),
					)
				}
				t.Otherwise("No version of the bundle of %s was recorded yet.", args[0])
			})
		}),
	}
	cmd.Flags().Int32Var(&limit, "limit", 0, "how many versions to list at most, the newest; 0: all")
	cmd.Flags().StringVar(&diff, "diff", "", "describe what changed between two sequences, FROM..TO; '..' is the "+
		"last two")
	cmd.MarkFlagsMutuallyExclusive("limit", "diff")
	return cmd
}

// versionRange reads FROM..TO, where either can be left out.
func versionRange(text string) (*ententev1.CompareBundleVersionsRequest, error) {
	from, to, ok := strings.Cut(text, "..")
	request := &ententev1.CompareBundleVersionsRequest{}
	for _, side := range []struct {
		text string
		set  **uint64
	}{{from, &request.From}, {to, &request.To}} {
		if side.text == "" {
			continue
		}
		n, err := strconv.ParseUint(side.text, 10, 64)
		if err != nil {
			ok = false
		}
		*side.set = &n
	}
	if !ok {
		return nil, cli.Usagef(
			"--diff %q is not a pair of sequences: write FROM..TO, such as 7..9, or '..' for the last two", text,
		)
	}
	return request, nil
}

// counted is a number of authorities, where it is known.
func counted(v *ententev1.BundleVersion, n int32) string {
	if v.GetContentGone() {
		return "?"
	}
	return fmt.Sprint(n)
}

func statementWord(v *ententev1.BundleVersion) string {
	switch v.GetStatementState() {
	case ententev1.StatementState_STATEMENT_STATE_UNSPECIFIED:
		return ""
	case ententev1.StatementState_STATEMENT_STATE_STARTS:
		return "starts a chain (" + v.GetStatementDetail() + ")"
	case ententev1.StatementState_STATEMENT_STATE_NONE:
		return "none: " + v.GetStatementDetail()
	}
	return cli.EnumName(v.GetStatementState())
}

// differenceLines returns the differences of a comparison as lines.
func differenceLines(d *ententev1.CompareBundleVersionsResponse) string {
	lines := []string{fmt.Sprintf(
		"%s from sequence %s (%s) to %s (%s):",
		cli.Printable(d.GetTrustDomain()),
		cli.Sequence(
			d.GetFrom().Sequence), cli.Time(d.GetFrom().GetTime()), cli.Sequence(d.GetTo().Sequence),
		cli.Time(d.GetTo().GetTime()),
	)}
	for _, difference := range d.GetDifferences() {
		lines = append(lines, "  "+cli.Printable(difference.GetText()))
	}
	if len(lines) == 1 {
		lines = append(lines, "  the keys and the refresh hint are the same")
	}
	return strings.Join(lines, "\n")
}
