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
		listCommand(env), showCommand(env), rotateCommand(env), prepareCommand(env), activateCommand(env),
		taintCommand(env), revokeCommand(env), anchorsCommand(env), approveCommand(env))
}

func listCommand(env *cli.Env) *cobra.Command {
	kind := cli.EnumFlag{Of: ententev1.AuthorityKind(0).Descriptor()}
	state := cli.EnumFlag{Of: ententev1.AuthorityState(0).Descriptor()}
	cmd := &cobra.Command{
		Use:   "list [DOMAIN]",
		Short: "List the authorities, and what each waits for",
		Long: `List the authorities of a hosted trust domain, or of all, and what each waits for. With --kind and
--state only those of one kind or in one state are listed.`,
		Example: `  entente authority list
  entente authority list eu.example.org --kind x509 --state active`,
		Args: cli.Arguments("[DOMAIN]"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			list, err := member.Authorities().ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{
				TrustDomain: cli.Optional(args),
			})
			if err != nil {
				return err
			}
			found := len(list.GetAuthorities()) > 0
			list.Authorities = filtered(list.GetAuthorities(), ententev1.AuthorityKind(kind.Number),
				ententev1.AuthorityState(state.Number))
			return env.Print(list, func(t *cli.Table) {
				listAuthorities(t, list.GetAuthorities())
				if found {
					t.Otherwise("No authority has this kind and state.")
					return
				}
				t.Otherwise("%s", noAuthority(cli.Optional(args)))
			})
		}),
	}
	cmd.Flags().Var(&kind, "kind", "only authorities of this kind: x509 or jwt")
	cmd.Flags().Var(&state, "state", "only authorities in this state: prepared, active, retiring, tainted or revoked")
	return cmd
}

// filtered returns the authorities of a kind in a state. The unspecified value of either is any.
func filtered(
	all []*ententev1.Authority, kind ententev1.AuthorityKind, state ententev1.AuthorityState,
) (out []*ententev1.Authority) {
	for _, x := range all {
		if (kind == 0 || x.GetKind() == kind) && (state == 0 || x.GetState() == state) {
			out = append(out, x)
		}
	}
	return out
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
		Example: `  entente authority rotate eu.example.org
  entente authority rotate eu.example.org --anchors`,
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
