package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func (a *app) federationCommand() *cobra.Command {
	type client = ententev1.FederationServiceClient
	return group("federation", "Relationships: the foreign trust domains that are trusted, and where their bundles come from",
		a.federationCreateCommand(), a.federationListCommand(), a.federationUpdateCommand(), a.federationDeleteCommand(),
		a.relationshipCommand("show", "Show a relationship and how fresh its bundle is",
			func(ctx context.Context, c client, td string) (*ententev1.Relationship, error) {
				return c.GetRelationship(ctx, &ententev1.GetRelationshipRequest{TrustDomain: td})
			}),
		a.relationshipCommand("refresh", "Fetch the bundle now, and show what came of it",
			func(ctx context.Context, c client, td string) (*ententev1.Relationship, error) {
				return c.RefreshRelationship(ctx, &ententev1.RefreshRelationshipRequest{TrustDomain: td})
			}),
		a.relationshipCommand("suspend", "Stop acting on a relationship; its bundle is kept",
			func(ctx context.Context, c client, td string) (*ententev1.Relationship, error) {
				return c.SuspendRelationship(ctx, &ententev1.SuspendRelationshipRequest{TrustDomain: td})
			}),
		a.relationshipCommand("resume", "Act on a suspended relationship again",
			func(ctx context.Context, c client, td string) (*ententev1.Relationship, error) {
				return c.ResumeRelationship(ctx, &ententev1.ResumeRelationshipRequest{TrustDomain: td})
			}),
		a.federationInviteCommand(), a.federationInvitationsCommand(), a.federationAcceptCommand(),
		a.relationshipCommand("approve", "Consent to an agreement that came of an invitation; it counts once both sides have",
			func(ctx context.Context, c client, td string) (*ententev1.Relationship, error) {
				return c.ApproveRelationship(ctx, &ententev1.ApproveRelationshipRequest{TrustDomain: td})
			}),
	)
}

// relationshipCommand is a verb that takes a domain and answers with its relationship.
func (a *app) relationshipCommand(verb, short string, call func(context.Context, ententev1.FederationServiceClient, string) (*ententev1.Relationship, error)) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " DOMAIN",
		Short: short,
		Args:  arguments("DOMAIN"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			return a.printRelationship(call(ctx, ententev1.NewFederationServiceClient(conn), args[0]))
		}),
	}
}

func (a *app) federationListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the relationships",
		Args:  arguments(),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, _ []string) error {
			client := ententev1.NewFederationServiceClient(conn)
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
			return a.print(list, func(t *table) {
				t.columns("DOMAIN", "STATE", "FRESHNESS", "SEQUENCE", "PROFILE", "URL", "OWNER", "STREAM", "LAST SUCCESS", "LAST RESULT")
				for _, r := range list.GetRelationships() {
					t.row(r.GetTrustDomain(), name(r.GetState()), name(r.GetFreshness()), relationshipSequence(r), name(r.GetProfile()), whereFrom(r), r.GetOwner(), streamOf(r), since(r.GetLastSuccessTime()), r.GetLastResult())
				}
				t.otherwise("No trust domain is federated with: 'entente federation invite' or 'entente federation create' begins.")
			})
		}),
	}
}

func (a *app) federationDeleteCommand() *cobra.Command {
	var toHub bool
	cmd := &cobra.Command{
		Use:   "delete DOMAIN",
		Short: "End the trust in a foreign domain: its bundle is deleted and every consumer told",
		Args:  arguments("DOMAIN"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			done, err := ententev1.NewFederationServiceClient(conn).DeleteRelationship(ctx, &ententev1.DeleteRelationshipRequest{TrustDomain: args[0], ToHub: toHub})
			if err != nil {
				return err
			}
			return a.print(done, func(t *table) {
				if toHub {
					t.otherwise("The relationship with %s has ended; where a hub vouches for it, its word counts now.", args[0])
					return
				}
				t.otherwise("Trust domain %s is trusted no more.", args[0])
			})
		}),
	}
	cmd.Flags().BoolVar(&toHub, "to-hub", false, "where a hub vouches for the domain too, let its word count from now on")
	return cmd
}

func relationshipSequence(r *ententev1.Relationship) string {
	return sequence(&ententev1.Bundle{Sequence: r.Sequence})
}

func (a *app) printRelationship(r *ententev1.Relationship, err error) error {
	if err != nil {
		return err
	}
	return a.print(r, func(t *table) {
		t.field("trust domain", r.GetTrustDomain())
		t.field("state", name(r.GetState()))
		agreementFields(t, r.GetAgreement())
		if r.GetOriginHub() != "" {
			t.field("by the word of the hub", r.GetOriginHub())
			t.field("other hubs", strings.Join(r.GetOtherHubs(), ", "))
		}
		t.field("url", r.GetUrl())
		for _, e := range r.GetEndpoints() {
			if len(r.GetFallbackUrls()) > 0 {
				t.field("endpoint", endpointShown(e))
			}
		}
		t.field("profile", name(r.GetProfile()))
		t.field("endpoint spiffe id", r.GetEndpointSpiffeId())
		if len(r.GetWebRoots()) > 0 {
			t.field("web roots", "configured")
		}
		if len(r.GetServingBundle()) > 0 {
			t.field("serving bundle", "configured")
		}
		if n := r.GetMaxDocumentBytes(); n > 0 {
			t.field("max document", fmt.Sprintf("%d bytes", n))
		}
		if r.GetFetchTimeout() != nil {
			t.field("fetch timeout", span(r.GetFetchTimeout()))
		}
		for _, kind := range r.GetAuthorityKinds() {
			t.field("relied on", name(kind)+" authorities alone")
		}
		if r.GetLeftOut() != "" {
			t.field("left out", r.GetLeftOut())
		}
		t.field("max stale jwt", span(r.GetMaxStaleJwt()))
		t.field("max stale x509", span(r.GetMaxStaleX509()))
		t.field("freshness", name(r.GetFreshness()))
		t.field("sequence", relationshipSequence(r))
		t.field("digest", r.GetDigest())
		t.field("owner", r.GetOwner())
		t.field("refresh interval", span(r.GetRefreshInterval()))
		t.field("last success", exact(r.GetLastSuccessTime()))
		t.field("last attempt", exact(r.GetLastAttemptTime()))
		t.field("next attempt", exact(r.GetNextAttemptTime()))
		t.field("last result", r.GetLastResult())
		t.field("last error", r.GetLastError())
		if r.StatedSequence != nil {
			t.field("statements", fmt.Sprintf("checked up to sequence %d", r.GetStatedSequence()))
		}
		for _, alarm := range r.GetAlarms() {
			t.field("ALARM", fmt.Sprintf("%s at sequence %d, %s: %s", alarm.GetName(), alarm.GetSequence(), exact(alarm.GetTime()), alarm.GetDetail()))
		}
		hubFields(t, r)
		peerFields(t, r)
		t.field("created", exact(r.GetCreateTime()))
		t.field("revision", r.GetRevision())
	})
}

// endpointShown is one of several endpoints on a line.
func endpointShown(e *ententev1.EndpointAttempt) string {
	switch {
	case e.GetResult() == "":
		return e.GetUrl() + " not tried yet"
	case e.GetError() == "":
		return fmt.Sprintf("%s %s, %s", e.GetUrl(), e.GetResult(), exact(e.GetAttemptTime()))
	}
	return fmt.Sprintf("%s %s, %s: %s", e.GetUrl(), e.GetResult(), exact(e.GetAttemptTime()), e.GetError())
}

// jwtStaleDefault is what the server takes without --max-stale-jwt; it stands in the help.
const jwtStaleDefault = 7 * 24 * time.Hour
