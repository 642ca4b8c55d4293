package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// dataSources are all data sources. Lists are read by page, never one call an object.
func dataSources() []func() datasource.DataSource {
	domain := func(m mode, text string) []attribute {
		return []attribute{
			{name: "trust_domain", mode: m, checks: []validator.String{trustDomainName}, text: text},
		}
	}
	return []func() datasource.DataSource{
		dataSourceOf(lookup[*ententev1.GetBundleRequest, *ententev1.Bundle]{
			name: "bundle", text: "The trust bundle of a hosted or foreign trust domain, as the cluster has it.",
			given: domain(required, "The trust domain."),
			read: func(c *client.Client) call[*ententev1.GetBundleRequest, *ententev1.Bundle] {
				return c.Bundles().GetBundle
			},
		}),
		dataSourceOf(lookup[*ententev1.GetDomainRequest, *ententev1.Domain]{
			name: "trust_domain", text: "A trust domain that the cluster hosts.",
			given: domain(required, "The trust domain."),
			read: func(c *client.Client) call[*ententev1.GetDomainRequest, *ententev1.Domain] {
				return c.Domains().GetDomain
			},
		}),
		dataSourceOf(lookup[*ententev1.ListDomainsRequest, *ententev1.ListDomainsResponse]{
			name: "trust_domains", text: "All trust domains that the cluster hosts.",
			read: func(c *client.Client) call[*ententev1.ListDomainsRequest, *ententev1.ListDomainsResponse] {
				return c.Domains().ListDomains
			},
		}),
		dataSourceOf(lookup[*ententev1.GetRelationshipRequest, *ententev1.Relationship]{
			name: "federation_relationship", text: "The relationship with a foreign trust domain, and how it stands.",
			given: domain(required, "The foreign trust domain."),
			read: func(c *client.Client) call[*ententev1.GetRelationshipRequest, *ententev1.Relationship] {
				return c.Federation().GetRelationship
			},
		}),
		dataSourceOf(lookup[*ententev1.ListRelationshipsRequest, *ententev1.ListRelationshipsResponse]{
			name: "federation_relationships", text: "All relationships with foreign trust domains.",
			read: func(c *client.Client) call[
				*ententev1.ListRelationshipsRequest, *ententev1.ListRelationshipsResponse,
			] {
				return allRelationships{c.Federation()}.list
			},
		}),
		dataSourceOf(lookup[*ententev1.ListMembersRequest, *ententev1.ListMembersResponse]{
			name: "cluster", text: "The members of the cluster, and which of them leads.",
			read: func(c *client.Client) call[*ententev1.ListMembersRequest, *ententev1.ListMembersResponse] {
				return c.Cluster().ListMembers
			},
		}),
		dataSourceOf(lookup[*ententev1.ListAuthoritiesRequest, *ententev1.ListAuthoritiesResponse]{
			name: "authorities", text: "The signing authorities of hosted trust domains.",
			given: domain(optional, "A hosted trust domain. Default: all."),
			read: func(c *client.Client) call[*ententev1.ListAuthoritiesRequest, *ententev1.ListAuthoritiesResponse] {
				return c.Authorities().ListAuthorities
			},
		}),
		dataSourceOf(lookup[*ententev1.GetHintRequest, *ententev1.Hint]{
			name: "hint", text: "Where a caller in a locality should send requests for a service.",
			given: []attribute{
				{name: "service", mode: required, text: "The service."},
				{name: "locality", mode: required, text: "Where the caller is.", parts: []attribute{
					{name: "region", mode: required, text: "The region."},
					{name: "zone", mode: optional, text: "The zone."},
					{name: "sub_zone", mode: optional, text: "The part of the zone."},
				}},
			},
			read: func(c *client.Client) call[*ententev1.GetHintRequest, *ententev1.Hint] {
				return c.Routing().GetHint
			},
		}),
	}
}

// allRelationships reads all pages.
type allRelationships struct {
	ententev1.FederationServiceClient
}

func (a allRelationships) list(
	ctx context.Context, _ *ententev1.ListRelationshipsRequest, _ ...grpc.CallOption,
) (*ententev1.ListRelationshipsResponse, error) {
	all := &ententev1.ListRelationshipsResponse{}
	for page, err := range pages(ctx, a) {
		if err != nil {
			return nil, err
		}
		all.Revision = page.GetRevision()
		all.Relationships = append(all.Relationships, page.GetRelationships()...)
	}
	return all, nil
}
