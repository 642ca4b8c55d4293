package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func (a *app) bundleHistoryCommand() *cobra.Command {
	var limit int32
	var diff string
	cmd := &cobra.Command{
		Use:   "history DOMAIN",
		Short: "List the versions of a bundle, or say what changed between two",
		Long: `List the versions of a bundle that the cluster keeps, newest first: the last 100 of a hosted domain, the last 10 of a
foreign one, with where each came from and how its signed statement stands.

With --diff, say in words what changed between two of them: '--diff 7..9' from sequence 7 to 9, '--diff ..9' from the version before 9,
'--diff 7..' from 7 to the newest, '--diff ..' between the last two.`,
		Args: arguments("DOMAIN"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, cmd *cobra.Command, args []string) error {
			client := ententev1.NewBundleServiceClient(conn)
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
				return a.printOne(answer, func() string { return differenceLines(answer) })
			}
			answer, err := client.GetBundleHistory(ctx, &ententev1.GetBundleHistoryRequest{TrustDomain: args[0], Limit: limit})
			if err != nil {
				return err
			}
			return a.print(answer, func(t *table) {
				t.columns("SEQUENCE", "TIME", "X.509", "JWT", "DIGEST", "STATEMENT", "SOURCE")
				for _, v := range answer.GetVersions() {
					t.row(versionSequence(v), exact(v.GetTime()), counted(v, v.GetX509Authorities()), counted(v, v.GetJwtAuthorities()), v.GetDigest()[:min(16, len(v.GetDigest()))], statementWord(v), v.GetSource())
				}
				t.otherwise("No version of the bundle of %s was recorded yet.", args[0])
			})
		}),
	}
	cmd.Flags().Int32Var(&limit, "limit", 0, "how many versions to list at most, the newest; 0: all")
	cmd.Flags().StringVar(&diff, "diff", "", "say what changed between two sequences, FROM..TO; '..' is the last two")
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
		return nil, usagef("--diff %q is no pair of sequences; write FROM..TO, such as 7..9, or '..' for the last two", text)
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

func versionSequence(v *ententev1.BundleVersion) string {
	return sequence(&ententev1.Bundle{Sequence: v.Sequence})
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
	return name(v.GetStatementState())
}

// differenceLines says what a comparison found.
func differenceLines(d *ententev1.CompareBundleVersionsResponse) string {
	lines := []string{fmt.Sprintf("%s from sequence %s (%s) to %s (%s):", printable(d.GetTrustDomain()),
		versionSequence(d.GetFrom()), exact(d.GetFrom().GetTime()), versionSequence(d.GetTo()), exact(d.GetTo().GetTime()))}
	for _, difference := range d.GetDifferences() {
		lines = append(lines, "  "+printable(difference.GetText()))
	}
	if len(lines) == 1 {
		lines = append(lines, "  the keys and the refresh hint are the same")
	}
	return strings.Join(lines, "\n")
}
