package authority

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

func prepareCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "prepare [DOMAIN]",
		Short: "Prepare authorities in reserve: published, and not yet signing",
		Long: `Prepare authorities in reserve for a hosted domain, or for all: every member makes new ones and
publishes what verifies them. They take over when the active ones are past half of their lifetime, when an
operator activates them, or at once when no other authority of the domain can sign. With them a taint or a revocation
causes no pause.`,
		Example: `  entente authority prepare eu.example.org`,
		Args:    cli.Arguments("[DOMAIN]"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			begun, err := member.Authorities().PrepareAuthorities(ctx, &ententev1.PrepareAuthoritiesRequest{
				TrustDomain: cli.Optional(args),
			})
			if err != nil {
				return err
			}
			return env.Print(begun, func(t *cli.Table) {
				t.Otherwise(
					"The authorities are being prepared. All readers of the bundle have them in about %s; from "+
						"then on 'entente authority activate ID' is safe.",
					cli.Duration(begun.GetExpectedDuration()),
				)
			})
		}),
	}
}

func activateCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "activate ID",
		Short: "Activate a prepared authority at once, even if not all readers of the bundle have it",
		Long: `Activate a prepared authority now. It signs from then on, and the one that signed before retires. The
response warns of peers that may not have what verifies it yet: wait for them, unless the present authority
is lost.`,
		Example: `  entente authority prepare eu.example.org
  entente authority activate 6f1c2a9b4d3e5f60`,
		Args: cli.Arguments("ID"),
		RunE: changing(
			env,
			func(ctx context.Context, client ententev1.AuthorityServiceClient, td, id string) (authorityChange, error) {
				return client.ActivateAuthority(ctx, &ententev1.ActivateAuthorityRequest{TrustDomain: td, Id: id})
			},
		),
	}
}

func taintCommand(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "taint ID",
		Short: "Stop an authority at once, and renew what it signed",
		Long: `Stop an authority at once. What it signed stays valid until it expires; members renew their own
SVIDs from another authority, and clients that watch authorities are notified to do the same. Revoke it once that is
done.`,
		Example: `  entente authority taint 6f1c2a9b4d3e5f60`,
		Args:    cli.Arguments("ID"),
	}
	taint := func(
		ctx context.Context, member *cli.Member, id string, dryRun bool,
	) (*ententev1.TaintAuthorityResponse, error) {
		client := member.Authorities()
		td, err := domainOfAuthority(ctx, client, id)
		if err != nil {
			return nil, err
		}
		return client.TaintAuthority(ctx, &ententev1.TaintAuthorityRequest{TrustDomain: td, Id: id, DryRun: dryRun})
	}
	cmd.RunE = env.Destroys(cmd).Run(
		func(args []string) string { return "Taint authority " + args[0] },
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return taint(ctx, member, args[0], true)
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := taint(ctx, member, args[0], false)
			if err != nil {
				return err
			}
			return env.Print(done, changed(done))
		})
	return cmd
}

func revokeCommand(env *cli.Env) *cobra.Command {
	var anchor, domain string
	var force bool
	cmd := &cobra.Command{
		Use:   "revoke ID | revoke --anchor KEYID",
		Short: "Stop an authority at once, and reject what it signed",
		Long: `Stop an authority at once and remove what verifies it from the bundle: a JWT key, or the member's own
root with all below it. If the roots are those of an upstream, such as Vault, the certificate is revoked there, and
the root stays: SPIFFE verifiers read no revocation list, and the output has the time until which they accept what
it signed. --anchor removes such a root from the bundle too, with every authority below it; KEYID is its key_id in
'entente authority list -o json'.`,
		Example: `  entente authority revoke 6f1c2a9b4d3e5f60 --dry-run
  entente authority revoke --anchor 4fe2c1d0a9b8 --domain eu.example.org`,
		Args: cli.Arguments("[ID]"),
		PreRunE: func(_ *cobra.Command, args []string) error {
			switch {
			case anchor == "" && len(args) == 0:
				return cli.Usagef("ID is missing: name an authority, or an anchor by --anchor")
			case anchor != "" && len(args) > 0:
				return cli.Usagef("both ID and --anchor are given: name one")
			case anchor == "" && (force || domain != ""):
				return cli.Usagef("--force and --domain go with --anchor")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&anchor, "anchor", "", "revoke the anchor with this `KEYID`, and all below it")
	f.StringVar(&domain, "domain", "", "the anchor's `DOMAIN`, if no authority is below it")
	f.BoolVar(&force, "force", false,
		"revoke an upstream's anchor even if no member can sign until the upstream has another")
	revoke := func(
		ctx context.Context, member *cli.Member, args []string, dryRun bool,
	) (_ *ententev1.RevokeAuthorityResponse, err error) {
		client := member.Authorities()
		request := &ententev1.RevokeAuthorityRequest{TrustDomain: domain, Force: force, DryRun: dryRun}
		if anchor != "" {
			request.What = &ententev1.RevokeAuthorityRequest_Anchor{Anchor: anchor}
			if domain == "" {
				request.TrustDomain, err = domainOfAnchor(ctx, client, anchor)
			}
		} else {
			request.What = &ententev1.RevokeAuthorityRequest_Id{Id: args[0]}
			request.TrustDomain, err = domainOfAuthority(ctx, client, args[0])
		}
		if err != nil {
			return nil, err
		}
		return client.RevokeAuthority(ctx, request)
	}
	cmd.RunE = env.Destroys(cmd).Run(
		func(args []string) string {
			if anchor != "" {
				return "Revoke anchor " + anchor
			}
			return "Revoke authority " + args[0]
		},
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return revoke(ctx, member, args, true)
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := revoke(ctx, member, args, false)
			if err != nil {
				return err
			}
			return env.Print(done, changed(done))
		})
	return cmd
}

// authorityChange is the response to a change of authorities.
type authorityChange interface {
	proto.Message
	GetAuthorities() []*ententev1.Authority
	GetWarnings() []string
}

// changing returns a RunE that changes the authority that the command line names.
func changing(
	env *cli.Env,
	change func(ctx context.Context, client ententev1.AuthorityServiceClient, td, id string) (authorityChange, error),
) func(*cobra.Command, []string) error {
	return env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
		client := member.Authorities()
		td, err := domainOfAuthority(ctx, client, args[0])
		if err != nil {
			return err
		}
		done, err := change(ctx, client, td, args[0])
		if err != nil {
			return err
		}
		return env.Print(done, changed(done))
	})
}

// domainOfAuthority returns the domain of an authority, among those that are visible to the caller.
func domainOfAuthority(ctx context.Context, client ententev1.AuthorityServiceClient, id string) (string, error) {
	return domainOf(ctx, client, "authority "+id, func(x *ententev1.Authority) bool { return x.GetId() == id })
}

func domainOfAnchor(ctx context.Context, client ententev1.AuthorityServiceClient, keyID string) (string, error) {
	return domainOf(ctx, client, "anchor "+keyID+" above an authority", func(x *ententev1.Authority) bool {
		return x.GetKind() == ententev1.AuthorityKind_AUTHORITY_KIND_X509 && strings.EqualFold(x.GetKeyId(), keyID)
	})
}

func domainOf(
	ctx context.Context, client ententev1.AuthorityServiceClient, what string, is func(*ententev1.Authority) bool,
) (string, error) {
	list, err := client.ListAuthorities(
		ctx,
		&ententev1.ListAuthoritiesRequest{
			Read: &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_LINEARIZABLE},
		},
	)
	if err != nil {
		return "", err
	}
	for _, x := range list.GetAuthorities() {
		if is(x) {
			return x.GetTrustDomain(), nil
		}
	}
	return "", cli.NotFoundf("there is no %s that is visible to you: see 'entente authority list'", what)
}

// changed prints the changed authorities with warnings about the change.
func changed(done authorityChange) func(*cli.Table) {
	return func(t *cli.Table) {
		listAuthorities(t, done.GetAuthorities())
		var lines []string
		for _, warning := range done.GetWarnings() {
			lines = append(lines, cli.Printable(warning))
		}
		if len(done.GetAuthorities()) == 0 {
			t.Clear()
		}
		t.Note = strings.Join(lines, "\n")
	}
}
