package provider

import (
	"context"
	"iter"

	"github.com/hashicorp/terraform-plugin-framework/list"
	"github.com/hashicorp/terraform-plugin-framework/list/schema"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// listed is the list resource of a kind, by which terraform query finds what can be imported. It has no arguments.
type listed[M proto.Message] struct {
	*managed[M]
}

func listOf[M proto.Message](k kind[M]) func() list.ListResource {
	all := bind(empty[M]().ProtoReflect().Descriptor(), k.attributes)
	return func() list.ListResource { return &listed[M]{&managed[M]{kind: k, bound: all}} }
}

// ListResourceConfigSchema implements list.ListResource.
func (l *listed[M]) ListResourceConfigSchema(
	_ context.Context, _ list.ListResourceSchemaRequest, w *list.ListResourceSchemaResponse,
) {
	w.Schema = schema.Schema{MarkdownDescription: "All that the provider may read of: " + l.text}
}

// List implements list.ListResource.
func (l *listed[M]) List(ctx context.Context, q list.ListRequest, w *list.ListResultsStream) {
	w.Results = func(push func(list.ListResult) bool) {
		left := q.Limit
		for m, err := range l.list(ctx, l.client) {
			result := q.NewListResult(ctx)
			if err != nil {
				report(&result.Diagnostics, "Could not list what exists of "+providerName+"_"+l.name, err)
				push(result)
				return
			}
			is := tfsdk.State{Raw: l.state(m, result.Resource.Raw), Schema: q.ResourceSchema}
			l.identify(ctx, is, result.Identity, &result.Diagnostics)
			result.DisplayName = l.called(m)
			if q.IncludeResource {
				result.Resource.Raw = is.Raw
			}
			if left--; !push(result) || left == 0 {
				return
			}
		}
	}
}

// relationships returns all relationships, page by page.
func relationships(ctx context.Context, c *client.Client) iter.Seq2[*ententev1.Relationship, error] {
	return func(push func(*ententev1.Relationship, error) bool) {
		for page, err := range pages(ctx, c.Federation()) {
			if err != nil {
				push(nil, err)
				return
			}
			for _, r := range page.GetRelationships() {
				if !push(r, nil) {
					return
				}
			}
		}
	}
}

// pages returns the pages of all relationships. It ends after an error.
func pages(
	ctx context.Context, c ententev1.FederationServiceClient,
) iter.Seq2[*ententev1.ListRelationshipsResponse, error] {
	return func(push func(*ententev1.ListRelationshipsResponse, error) bool) {
		q := &ententev1.ListRelationshipsRequest{}
		for {
			page, err := c.ListRelationships(ctx, q)
			if !push(page, err) || err != nil {
				return
			}
			if q.PageToken = page.GetNextPageToken(); q.PageToken == "" {
				return
			}
		}
	}
}

// grants returns all grants.
func grants(ctx context.Context, c *client.Client) iter.Seq2[*ententev1.Grant, error] {
	return func(push func(*ententev1.Grant, error) bool) {
		all, err := c.Access().ListGrants(ctx, &ententev1.ListGrantsRequest{})
		if err != nil {
			push(nil, err)
			return
		}
		for _, g := range all.GetGrants() {
			if !push(g, nil) {
				return
			}
		}
	}
}
