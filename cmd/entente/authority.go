package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func (a *app) authorityCommand() *cobra.Command {
	return group("authority", "The signing keys of hosted trust domains",
		a.authorityListCommand(), a.authorityRotateCommand(), a.authorityPrepareCommand(), a.authorityActivateCommand(),
		a.authorityTaintCommand(), a.authorityRevokeCommand(), a.authorityAnchorsCommand(), a.authorityApproveCommand())
}

func (a *app) authorityListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list [DOMAIN]",
		Short: "List the authorities, and what each waits for",
		Args:  arguments("[DOMAIN]"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			list, err := ententev1.NewAuthorityServiceClient(conn).ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{TrustDomain: optional(args)})
			if err != nil {
				return err
			}
			return a.print(list, func(t *table) {
				listAuthorities(t, list.GetAuthorities())
				t.otherwise("%s", noAuthority(optional(args)))
			})
		}),
	}
}

// noAuthority says that there is none, of one domain or at all. A domain that the caller may not see is refused before.
func noAuthority(domain string) string {
	if domain == "" {
		return "There is no authority that you may see."
	}
	return printable(domain) + " has no authority yet: each member makes its own in a moment, or its log says what keeps it from that."
}

func listAuthorities(t *table, all []*ententev1.Authority) {
	t.columns("ID", "DOMAIN", "MEMBER", "KIND", "STATE", "EXPIRES", "NEXT", "WAITS FOR")
	for _, x := range all {
		t.row(x.GetId(), x.GetTrustDomain(), x.GetMember(), name(x.GetKind()), name(x.GetState()), since(x.GetNotAfter()), since(x.GetNextTime()), x.GetWaitsFor())
	}
}

func (a *app) authorityRotateCommand() *cobra.Command {
	var anchors bool
	cmd := &cobra.Command{
		Use:   "rotate [DOMAIN]",
		Short: "Replace the authorities of a domain, or of all, without a pause in signing",
		Long: `Replace the authorities of a hosted domain, or of all: every member prepares new ones, which take over once
everybody can have learned of them. With --anchors the roots in the bundle are made anew as well.`,
		Args: arguments("[DOMAIN]"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			begun, err := ententev1.NewAuthorityServiceClient(conn).RotateAuthorities(ctx, &ententev1.RotateAuthoritiesRequest{TrustDomain: optional(args), Anchors: anchors})
			if err != nil {
				return err
			}
			return a.print(begun, func(t *table) {
				done := "soon"
				if d := begun.GetExpectedDuration(); d != nil {
					done = fmt.Sprintf("in about %s", span(d))
				}
				t.otherwise("The new authorities are being prepared and take over %s: 'entente authority list' shows how far they are.", done)
			})
		}),
	}
	cmd.Flags().BoolVar(&anchors, "anchors", false, "make new anchors (roots) too, where the upstream is self-signed")
	return cmd
}
