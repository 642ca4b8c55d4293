package authority

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

func anchorsCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "anchors [DOMAIN]",
		Short: "List the anchors (roots) that verify X509-SVIDs, and those that wait for approval",
		Long: `List the anchors (roots) that verify X509-SVIDs, of a hosted trust domain or of all. One that an
upstream, such as Vault, has in addition can wait for approval. 'entente authority show KEYID' has all
details of one.`,
		Example: `  entente authority anchors eu.example.org`,
		Args:    cli.Arguments("[DOMAIN]"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			list, err := member.Authorities().ListAnchors(ctx, &ententev1.ListAnchorsRequest{
				TrustDomain: cli.Optional(args),
			})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				listAnchors(t, list.GetAnchors())
				t.Otherwise("%s", noAuthority(cli.Optional(args)))
			})
		}),
	}
}

func listAnchors(t *cli.Table, all []*ententev1.Anchor) {
	t.Columns("KEY ID", "DOMAIN", "STATE", "SOURCE", "SUBJECT", "EXPIRES", "AUTHORITIES", "DETAIL")
	for _, x := range all {
		t.Row(
			x.GetKeyId(), x.GetTrustDomain(), cli.EnumName(x.GetState()), sourceOf(x), x.GetSubject(),
			cli.Since(x.GetNotAfter()), x.GetAuthorities(), x.GetDetail(),
		)
	}
}

// sourceOf returns whose an anchor is.
func sourceOf(x *ententev1.Anchor) string {
	if x.GetUpstream() {
		return "upstream"
	}
	return "member"
}

func approveCommand(env *cli.Env) *cobra.Command {
	var domain string
	cmd := &cobra.Command{
		Use:   "approve ANCHOR",
		Short: "Publish an anchor of the upstream that waits for approval",
		Long: `Publish an anchor of the upstream that waits for approval, as anchor_approval in the upstream's
configuration asks for. ANCHOR is its key ID, or the SHA-256 of its certificate, as 'entente authority anchors'
shows them: compare one of them with the certificate in Vault. To reject it for good: 'entente authority revoke --anchor
KEYID --domain DOMAIN'.`,
		Example: `  entente authority approve 4fe2c1d0a9b8 --domain eu.example.org`,
		Args:    cli.Arguments("ANCHOR"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) (err error) {
			client := member.Authorities()
			if domain == "" {
				if domain, err = domainOfPending(ctx, client, args[0]); err != nil {
					return err
				}
			}
			done, err := client.ApproveAnchor(
				ctx, &ententev1.ApproveAnchorRequest{TrustDomain: domain, Anchor: args[0]},
			)
			if err != nil {
				return err
			}
			return env.Print(done, anchorFields(done.GetAnchor()))
		}),
	}
	cmd.Flags().StringVar(&domain, "domain", "", "the anchor's `DOMAIN` (default: the domain of the anchor, if it "+
		"is the only one)")
	return cmd
}

// domainOfPending returns the domain of an anchor that waits for approval.
func domainOfPending(ctx context.Context, client ententev1.AuthorityServiceClient, anchor string) (string, error) {
	list, err := client.ListAnchors(
		ctx,
		&ententev1.ListAnchorsRequest{
			Read: &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_LINEARIZABLE},
		},
	)
	if err != nil {
		return "", err
	}
	for _, x := range list.GetAnchors() {
		if x.GetState() == ententev1.AnchorState_ANCHOR_STATE_PENDING &&
			(strings.EqualFold(x.GetKeyId(), anchor) || strings.EqualFold(x.GetSha256(), anchor)) {
			return x.GetTrustDomain(), nil
		}
	}
	return "", cli.NotFoundf(
		"no anchor %s that is visible to you waits for approval: see 'entente authority anchors'",
		cli.Printable(anchor),
	)
}
