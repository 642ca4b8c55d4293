// Package authority has the commands for signing authorities and their anchors.
package authority

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("authority", "The signing keys of hosted trust domains",
		listCommand(env), rotateCommand(env), prepareCommand(env), activateCommand(env),
		taintCommand(env), revokeCommand(env), anchorsCommand(env), approveCommand(env))
}

func listCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "list [DOMAIN]",
		Short: "List the authorities, and what each waits for",
		Args:  cli.Arguments("[DOMAIN]"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			list, err := member.Authorities().ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{
				TrustDomain: cli.Optional(args),
			})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				listAuthorities(t, list.GetAuthorities())
				t.Otherwise("%s", noAuthority(cli.Optional(args)))
			})
		}),
	}
}

// noAuthority returns the text for an empty list. A domain that the caller may not see is rejected before.
func noAuthority(domain string) string {
	if domain == "" {
		return "No authority is visible to you."
	}
	return cli.Printable(
		domain,
	) + " has no authority yet: each member makes its own in a moment, or its log has the reason why not."
}

func listAuthorities(t *cli.Table, all []*ententev1.Authority) {
	t.Columns("ID", "DOMAIN", "MEMBER", "KIND", "STATE", "EXPIRES", "NEXT", "WAITS FOR")
	for _, x := range all {
		t.Row(
			x.GetId(), x.GetTrustDomain(), x.GetMember(), cli.EnumName(x.GetKind()), cli.EnumName(x.GetState()),
			cli.Since(x.GetNotAfter()), cli.Since(x.GetNextTime()), x.GetWaitsFor(),
		)
	}
}

func rotateCommand(env *cli.Env) *cobra.Command {
	var anchors bool
	cmd := &cobra.Command{
		Use:   "rotate [DOMAIN]",
		Short: "Replace the authorities of a domain, or of all, without a pause in signing",
		Long: `Replace the authorities of a hosted domain, or of all: every member prepares new ones, which take
over once all readers of the bundle can have them. With --anchors the roots in the bundle are replaced as well.`,
		Args: cli.Arguments("[DOMAIN]"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			begun, err := member.Authorities().RotateAuthorities(ctx, &ententev1.RotateAuthoritiesRequest{
				TrustDomain: cli.Optional(args), Anchors: anchors,
			})
			if err != nil {
				return err
			}
			return env.Print(begun, func(t *cli.Table) {
				done := "soon"
				if d := begun.GetExpectedDuration(); d != nil {
					done = fmt.Sprintf("in about %s", cli.Duration(d))
				}
				t.Otherwise(
					"The new authorities are being prepared and take over %s: 'entente authority list' shows how "+
						"far they are.",
					done,
				)
			})
		}),
	}
	cmd.Flags().BoolVar(&anchors, "anchors", false, "make new anchors (roots) too, if the upstream is self-signed")
	return cmd
}
