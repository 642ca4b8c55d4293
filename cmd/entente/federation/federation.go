// Package federation has the commands for relationships with foreign trust domains, and for invitations.
package federation

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	type client = ententev1.FederationServiceClient
	return cli.Group(
		"federation",
		"Relationships: the foreign trust domains that are trusted, and where their bundles come from",
		createCommand(env),
		listCommand(env),
		updateCommand(env),
		deleteCommand(env),
		relationshipCommand(env, "show", "Show a relationship and how fresh its bundle is",
			`Show a relationship: where the bundle comes from, how fresh it is, what the last attempt gave, the streams
with the other cluster, and the alarms. Errors are shown in full.`,
			func(ctx context.Context, c client, td string) (*ententev1.Relationship, error) {
				return c.GetRelationship(ctx, &ententev1.GetRelationshipRequest{TrustDomain: td})
			}),
		refreshCommand(env),
		relationshipCommand(env, "suspend", "Stop acting on a relationship; its bundle is kept",
			`Stop acting on a relationship: its bundle verifies nobody, and its instances are left out of hints, until
'entente federation resume'. The bundle is kept, and nothing is fetched.`,
			func(ctx context.Context, c client, td string) (*ententev1.Relationship, error) {
				return c.SuspendRelationship(ctx, &ententev1.SuspendRelationshipRequest{TrustDomain: td})
			}),
		relationshipCommand(env, "resume", "Act on a suspended relationship again",
			`Act on a suspended relationship again. The stored bundle counts at once, and is fetched anew.`,
			func(ctx context.Context, c client, td string) (*ententev1.Relationship, error) {
				return c.ResumeRelationship(ctx, &ententev1.ResumeRelationshipRequest{TrustDomain: td})
			}),
		inviteCommand(env),
		invitationsCommand(env),
		acceptCommand(env),
		relationshipCommand(
			env,
			"approve",
			"Consent to an agreement that an invitation made; it takes effect once both sides have consented",
			`Consent to an agreement that an invitation made, or to addresses that the other side has announced since.
It takes effect once the operators of both sides have consented; 'entente federation show' has the state
of both.`,
			func(ctx context.Context, c client, td string) (*ententev1.Relationship, error) {
				return c.ApproveRelationship(ctx, &ententev1.ApproveRelationshipRequest{TrustDomain: td})
			},
		),
	)
}

// relationshipCommand returns a verb that calls a method for a domain and prints its relationship.
func relationshipCommand(
	env *cli.Env, verb, short, long string,
	call func(context.Context, ententev1.FederationServiceClient, string) (*ententev1.Relationship, error),
) *cobra.Command {
	return &cobra.Command{
		Use:     verb + " DOMAIN",
		Short:   short,
		Long:    long,
		Example: "  entente federation " + verb + " us.example.org",
		Args:    cli.Arguments("DOMAIN"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			return printRelationship(env)(call(ctx, member.Federation(), args[0]))
		}),
	}
}

func refreshCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "refresh DOMAIN",
		Short: "Fetch the bundle now, and show the result; fails if the fetch does",
		Long: `Fetch the bundle of a foreign trust domain now, and show the result. The command fails if the fetch does;
the stored bundle stays in any case.`,
		Example: `  entente federation refresh us.example.org`,
		Args:    cli.Arguments("DOMAIN"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			r, err := member.Federation().RefreshRelationship(ctx, &ententev1.RefreshRelationshipRequest{
				TrustDomain: args[0],
			})
			if err := printRelationship(env)(r, err); err != nil {
				return err
			}
			if failure := r.GetLastError(); failure != "" {
				return fmt.Errorf("the bundle of %s was not refreshed (%s): %s", args[0], r.GetLastResult(), failure)
			}
			return nil
		}),
	}
}

func listCommand(env *cli.Env) *cobra.Command {
	var stale *bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the relationships",
		Long: `List the relationships: the foreign trust domains, how fresh the bundle of each is, and what the last
attempt to get it gave. 'entente federation show DOMAIN' has the texts of errors and alarms.`,
		Example: `  entente federation list`,
		Args:    cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := cli.Read(ctx, env, *stale,
				func(ctx context.Context, o *ententev1.ReadOptions) (*ententev1.ListRelationshipsResponse, error) {
					return listAll(ctx, member.Federation(), o)
				})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns(
					"DOMAIN", "STATE", "FRESHNESS", "SEQUENCE", "PROFILE", "URL", "OWNER", "STREAM", "LAST SUCCESS",
					"LAST RESULT",
				)
				for _, r := range list.GetRelationships() {
					t.Row(
						r.GetTrustDomain(), cli.EnumName(r.GetState()), cli.EnumName(r.GetFreshness()),
						cli.Sequence(r.Sequence), cli.EnumName(r.GetProfile()), sourceOf(r), r.GetOwner(),
						streamOf(r), cmp.Or(cli.Since(r.GetLastSuccessTime()), "never"), r.GetLastResult(),
					)
				}
				t.Otherwise(
					"There is no relationship: 'entente federation invite' or 'entente federation create' makes one.",
				)
			})
		}),
	}
	stale = cli.Stale(cmd)
	return cmd
}

// listAll reads all pages.
func listAll(
	ctx context.Context, client ententev1.FederationServiceClient, o *ententev1.ReadOptions,
) (*ententev1.ListRelationshipsResponse, error) {
	list := &ententev1.ListRelationshipsResponse{}
	for request := (&ententev1.ListRelationshipsRequest{Read: o}); ; {
		page, err := client.ListRelationships(ctx, request)
		if err != nil {
			return nil, err
		}
		list.Revision = page.GetRevision()
		list.Relationships = append(list.Relationships, page.GetRelationships()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return list, nil
		}
	}
}

func deleteCommand(env *cli.Env) *cobra.Command {
	var toHub bool
	cmd := &cobra.Command{
		Use:   "delete DOMAIN",
		Short: "End the trust in a foreign domain: its bundle is deleted, and its consumers are notified",
		Long: `End the trust in a foreign domain: its bundle is deleted, and its consumers are notified. An agreement
ends at the other side too. The effect is shown first, and the command asks.`,
		Example: `  entente federation delete us.example.org --dry-run
  entente federation delete us.example.org`,
		Args: cli.Arguments("DOMAIN"),
	}
	cmd.Flags().BoolVar(&toHub, "to-hub", false, "if a hub attests the domain too, accept its attestation from "+
		"now on")
	etag := cli.Etag(cmd)
	cmd.RunE = env.Destroys(cmd).Run(
		func(args []string) string { return "End the trust in " + args[0] },
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return member.Federation().DeleteRelationship(ctx, &ententev1.DeleteRelationshipRequest{
				TrustDomain: args[0], ToHub: toHub, Etag: *etag, DryRun: true,
			})
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Federation().DeleteRelationship(ctx, &ententev1.DeleteRelationshipRequest{
				TrustDomain: args[0], ToHub: toHub, Etag: *etag,
			})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) {
				if toHub {
					t.Otherwise("The relationship with %s has ended; the hub's attestation counts now.", args[0])
					return
				}
				t.Otherwise("Trust domain %s is no longer trusted.", args[0])
			})
		})
	return env.IfExists(cmd)
}

// printRelationship returns a function that prints what a call returned.
func printRelationship(env *cli.Env) func(*ententev1.Relationship, error) error {
	return func(r *ententev1.Relationship, err error) error {
		if err != nil {
			return err
		}
		return env.Print(r, func(t *cli.Table) {
			t.Field("trust domain", r.GetTrustDomain())
			t.Field("state", cli.EnumName(r.GetState()))
			t.Field("suspended", cli.Time(r.GetSuspendTime()))
			t.Field("suspended by", r.GetSuspender())
			agreementFields(t, r.GetAgreement())
			if r.GetOriginHub() != "" {
				t.Field("attested by", r.GetOriginHub())
				t.Field("other hubs", strings.Join(r.GetOtherHubs(), ", "))
			}
			if r.GetStatic() {
				t.Field("source", "static: only 'entente federation update --bootstrap' changes the bundle")
			}
			t.Field("url", r.GetUrl())
			for _, e := range r.GetEndpoints() {
				if len(r.GetFallbackUrls()) > 0 {
					t.Field("endpoint", endpointShown(e))
				}
			}
			t.Field("profile", cli.EnumName(r.GetProfile()))
			t.Field("endpoint spiffe id", r.GetEndpointSpiffeId())
			if digest := r.GetWebRootsSha256(); digest != "" {
				t.Field("web roots", webRootsShown(digest, r.GetAgreement()))
			}
			if len(r.GetServingBundle()) > 0 {
				t.Field("serving bundle", "configured")
			}
			if n := r.GetMaxDocumentBytes(); n > 0 {
				t.Field("max document", fmt.Sprintf("%d bytes", n))
			}
			if r.GetFetchTimeout() != nil {
				t.Field("fetch timeout", cli.Duration(r.GetFetchTimeout()))
			}
			for _, kind := range r.GetAuthorityKinds() {
				t.Field("relied on", cli.EnumName(kind)+" authorities alone")
			}
			if r.GetIgnoredKeys() > 0 {
				t.Field("ignored keys", fmt.Sprintf("%d, which no verifier could use", r.GetIgnoredKeys()))
			}
			if r.GetLeftOut() != "" {
				t.Field("left out", r.GetLeftOut())
			}
			t.Field("max stale jwt", cli.Duration(r.GetMaxStaleJwt()))
			t.Field("max stale x509", cli.Duration(r.GetMaxStaleX509()))
			t.Field("freshness", cli.EnumName(r.GetFreshness()))
			t.Field("sequence", cli.Sequence(r.Sequence))
			t.Field("digest", r.GetDigest())
			t.Field("owner", r.GetOwner())
			if r.GetPollInterval() != nil {
				t.Field("poll interval", cli.Duration(r.GetPollInterval()))
			}
			t.Field("refresh interval", cli.Duration(r.GetRefreshInterval()))
			t.Field("last success", cmp.Or(cli.Time(r.GetLastSuccessTime()), "never"))
			t.Field("last attempt", cli.Time(r.GetLastAttemptTime()))
			t.Field("next attempt", cli.Time(r.GetNextAttemptTime()))
			t.Field("last result", r.GetLastResult())
			t.Field("last error", r.GetLastError())
			if r.StatedSequence != nil {
				t.Field("statements", fmt.Sprintf("checked up to sequence %d", r.GetStatedSequence()))
			}
			for _, alarm := range r.GetAlarms() {
				t.Field(
					"ALARM",
					fmt.Sprintf(
						"%s at sequence %d, %s: %s", alarm.GetName(), alarm.GetSequence(), cli.Time(alarm.GetTime()),
						alarm.GetDetail(),
					),
				)
			}
			hubFields(t, r)
			peerFields(t, r)
			t.Field("created", cli.Time(r.GetCreateTime()))
			t.Field("revision", r.GetRevision())
		})
	}
}

// webRootsShown returns the digest of web roots, and whether they came with the agreement.
func webRootsShown(digest string, g *ententev1.Agreement) string {
	if g.GetWebRootsSha256() == digest {
		return "sha256 " + digest + ", came with the agreement"
	}
	return "sha256 " + digest
}

// endpointShown returns one of several endpoints as a line.
func endpointShown(e *ententev1.EndpointAttempt) string {
	switch {
	case e.GetResult() == "":
		return e.GetUrl() + " not tried yet"
	case e.GetError() == "":
		return fmt.Sprintf("%s %s, %s", e.GetUrl(), e.GetResult(), cli.Time(e.GetAttemptTime()))
	}
	return fmt.Sprintf("%s %s, %s: %s", e.GetUrl(), e.GetResult(), cli.Time(e.GetAttemptTime()), e.GetError())
}
