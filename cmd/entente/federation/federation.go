// Package federation has the commands for relationships with foreign trust domains, and for invitations.
package federation

import (
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
			func(ctx context.Context, c client, td string) (*ententev1.Relationship, error) {
				return c.GetRelationship(ctx, &ententev1.GetRelationshipRequest{TrustDomain: td})
			}),
		relationshipCommand(env, "refresh", "Fetch the bundle now, and show the result",
			func(ctx context.Context, c client, td string) (*ententev1.Relationship, error) {
				return c.RefreshRelationship(ctx, &ententev1.RefreshRelationshipRequest{TrustDomain: td})
			}),
		relationshipCommand(env, "suspend", "Stop acting on a relationship; its bundle is kept",
			func(ctx context.Context, c client, td string) (*ententev1.Relationship, error) {
				return c.SuspendRelationship(ctx, &ententev1.SuspendRelationshipRequest{TrustDomain: td})
			}),
		relationshipCommand(env, "resume", "Act on a suspended relationship again",
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
			func(ctx context.Context, c client, td string) (*ententev1.Relationship, error) {
				return c.ApproveRelationship(ctx, &ententev1.ApproveRelationshipRequest{TrustDomain: td})
			},
		),
	)
}

// relationshipCommand returns a verb that calls a method for a domain and prints its relationship.
func relationshipCommand(
	env *cli.Env, verb, short string,
	call func(context.Context, ententev1.FederationServiceClient, string) (*ententev1.Relationship, error),
) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " DOMAIN",
		Short: short,
		Args:  cli.Arguments("DOMAIN"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			return printRelationship(env)(call(ctx, member.Federation(), args[0]))
		}),
	}
}

func listCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the relationships",
		Args:  cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			client := member.Federation()
			list := &ententev1.ListRelationshipsResponse{}
			for request := (&ententev1.ListRelationshipsRequest{}); ; {
				page, err := client.ListRelationships(ctx, request)
				if err != nil {
					return err
				}
				list.Revision = page.GetRevision()
				list.Relationships = append(list.Relationships, page.GetRelationships()...)
				if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
					break
				}
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
						streamOf(r), cli.Since(r.GetLastSuccessTime()), r.GetLastResult(),
					)
				}
				t.Otherwise(
					"There is no relationship: 'entente federation invite' or 'entente federation create' makes one.",
				)
			})
		}),
	}
}

func deleteCommand(env *cli.Env) *cobra.Command {
	var toHub bool
	cmd := &cobra.Command{
		Use:   "delete DOMAIN",
		Short: "End the trust in a foreign domain: its bundle is deleted, and its consumers are notified",
		Args:  cli.Arguments("DOMAIN"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Federation().DeleteRelationship(ctx, &ententev1.DeleteRelationshipRequest{
				TrustDomain: args[0], ToHub: toHub,
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
		}),
	}
	cmd.Flags().BoolVar(&toHub, "to-hub", false, "if a hub attests the domain too, accept its attestation from "+
		"now on")
	return cmd
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
			agreementFields(t, r.GetAgreement())
			if r.GetOriginHub() != "" {
				t.Field("attested by", r.GetOriginHub())
				t.Field("other hubs", strings.Join(r.GetOtherHubs(), ", "))
			}
			t.Field("url", r.GetUrl())
			for _, e := range r.GetEndpoints() {
				if len(r.GetFallbackUrls()) > 0 {
					t.Field("endpoint", endpointShown(e))
				}
			}
			t.Field("profile", cli.EnumName(r.GetProfile()))
			t.Field("endpoint spiffe id", r.GetEndpointSpiffeId())
			if len(r.GetWebRoots()) > 0 {
				t.Field("web roots", "configured")
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
			if r.GetLeftOut() != "" {
				t.Field("left out", r.GetLeftOut())
			}
			t.Field("max stale jwt", cli.Duration(r.GetMaxStaleJwt()))
			t.Field("max stale x509", cli.Duration(r.GetMaxStaleX509()))
			t.Field("freshness", cli.EnumName(r.GetFreshness()))
			t.Field("sequence", cli.Sequence(r.Sequence))
			t.Field("digest", r.GetDigest())
			t.Field("owner", r.GetOwner())
			t.Field("refresh interval", cli.Duration(r.GetRefreshInterval()))
			t.Field("last success", cli.Time(r.GetLastSuccessTime()))
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
