package provider

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// bootstrap is the write-only attribute with the first bundle. A new version sends it again, so that a rotation of the
// peer's keys makes no plan.
const bootstrap, bootstrapVersion = "bootstrap_wo", "bootstrap_wo_version"

var relationship = kind[*ententev1.Relationship]{
	name: "federation_relationship",
	text: "The agreement to trust one foreign trust domain: where its bundle is fetched, and by which profile.",
	key:  []string{"trust_domain"}, agreesOn: "trust_domain",
	attributes: append([]attribute{
		{name: "trust_domain", mode: required, replaces: true, checks: []validator.String{trustDomainName},
			text: "The foreign trust domain, such as `us.example.org`."},
	}, relationshipSettings()...),
	besides: map[string]schema.Attribute{
		bootstrap: schema.StringAttribute{Optional: true, WriteOnly: true, MarkdownDescription: "The SPIFFE bundle " +
			"document to start from, from a trusted source. It is sent when the relationship is created, and again " +
			"with every new `" + bootstrapVersion + "`; it is in neither plan nor state."},
		bootstrapVersion: schema.Int64Attribute{
			Optional: true, MarkdownDescription: "A number that is raised to send `" + bootstrap + "` again.",
		},
	},
	create: func(ctx context.Context, c *client.Client, wanted *ententev1.Relationship, g given) (
		*ententev1.Relationship, []string, error,
	) {
		document, err := g.text(ctx, bootstrap)
		if err != nil {
			return nil, nil, err
		}
		made, err := c.Federation().CreateRelationship(ctx, &ententev1.CreateRelationshipRequest{
			Relationship: wanted, BootstrapBundle: []byte(document),
		})
		if err != nil {
			return nil, nil, err
		}
		made, warnings := firstBundle(ctx, c, made)
		return made, warnings, nil
	},
	list: relationships,
	read: func(ctx context.Context, c *client.Client, key *ententev1.Relationship) (*ententev1.Relationship, error) {
		return c.Federation().GetRelationship(ctx,
			&ententev1.GetRelationshipRequest{TrustDomain: key.GetTrustDomain()})
	},
	update: func(ctx context.Context, c *client.Client, wanted *ententev1.Relationship, mask []string, g given) (
		*ententev1.Relationship, []string, error,
	) {
		r := &ententev1.UpdateRelationshipRequest{
			Relationship: wanted, UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}, Etag: g.etag,
		}
		if g.moved[bootstrapVersion] {
			document, err := g.text(ctx, bootstrap)
			if err != nil {
				return nil, nil, err
			}
			r.BootstrapBundle = []byte(document)
		}
		is, err := c.Federation().UpdateRelationship(ctx, r)
		return is, nil, err
	},
	remove: func(ctx context.Context, c *client.Client, stored *ententev1.Relationship, etag string) error {
		_, err := c.Federation().DeleteRelationship(ctx,
			&ententev1.DeleteRelationshipRequest{TrustDomain: stored.GetTrustDomain(), Etag: etag})
		return err
	},
}

// pollFirst is the interval at which a new relationship is read until it has a bundle.
const pollFirst = 200 * time.Millisecond

// firstBundle waits until a relationship that was just made has a bundle. That it has none when ctx ends is a warning
// with the last error of a fetch, and not an error, after which Terraform would delete the relationship: the cluster
// goes on to fetch the bundle.
func firstBundle(ctx context.Context, c *client.Client, made *ententev1.Relationship) (
	*ententev1.Relationship, []string,
) {
	tick := time.NewTicker(pollFirst)
	defer tick.Stop()
	for made.GetDigest() == "" {
		select {
		case <-ctx.Done():
			return made, []string{fmt.Sprintf("no bundle of %s was accepted within the timeout of the creation: %s. "+
				"The relationship exists, and its bundle is fetched further; nothing has to be applied again",
				made.GetTrustDomain(), cmp.Or(made.GetLastError(), "no fetch has ended yet"))}
		case <-tick.C:
		}
		is, err := c.Federation().GetRelationship(ctx,
			&ententev1.GetRelationshipRequest{TrustDomain: made.GetTrustDomain()})
		if err == nil {
			made = is
		}
	}
	return made, nil
}

// relationshipTexts describe the settings of a relationship. A setting without one has the help of the command's flag.
var relationshipTexts = map[string]string{
	"url": "Where the bundle is served: `https://HOST[:PORT]/PATH`, or `file:///NAME` for a file of the members' " +
		"`federation.bundle_dir`. Default: none, for a static relationship.",
	"egress_proxy": "The HTTP proxy through which the bundle is fetched and the stream to the peer is opened: " +
		"`http://HOST:PORT`, or `none`. Default: `federation.egress_proxy` of each member.",
	"static": "Whether the bundle comes from `bootstrap_wo` alone: nothing is fetched, and it is never stale.",
	"fallback_urls": "Further endpoints that serve the same bundle under the same profile, tried in order after " +
		"`url`.",
	"profile":            "How the endpoint authenticates: `https_spiffe` or `https_web`; nothing else has one.",
	"endpoint_spiffe_id": "`https_spiffe`: the SPIFFE ID that the endpoint must authenticate as.",
	"web_roots":          "`https_web`: PEM certificates that are the only accepted roots. Default: the system's.",
	"serving_bundle": "`https_spiffe`, if `endpoint_spiffe_id` is in another domain: the SPIFFE bundle document of " +
		"that domain. Default: its bundle in this cluster.",
	"authority_kinds": "The kinds of authorities that are accepted: `x509`, `jwt`. Default: both.",
	"peer": "The cluster that hosts the domain, if it runs Entente: a stream is kept with it, and services can be " +
		"exchanged.",
	"home_trust_domain": "The home trust domain of that cluster.",
	"addresses": "`HOST:PORT` of the cluster ports of its members. Default: none, only that cluster opens the " +
		"stream.",
	"attest":  "Whether this cluster, as a hub, attests the domain to others.",
	"hub":     "Which trust domains are accepted from the bundle map of the domain's cluster. Default: none.",
	"include": "Trust domains, or all below a name such as `.example.org`.",
	"exclude": "Exceptions in the same form.",
	"hub.url": "Where the map is served. Default: `/bundles` at the host of the relationship's `url`.",
}

// relationshipSettings are the attributes for the fields that the API marks as settings. A new setting of the API is an
// attribute by itself.
func relationshipSettings() (all []attribute) {
	fields := (*ententev1.Relationship)(nil).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !proto.HasExtension(f.Options(), ententev1.E_Setting) {
			continue
		}
		a := attribute{name: string(f.Name()), mode: optional, text: textOf(f, ""), checks: checksOf(f)}
		switch a.name {
		case "max_stale_jwt":
			a.mode = defaulted
		}
		if f.Message() != nil && !isScalarMessage(f.Message()) {
			parts := f.Message().Fields()
			for n := range parts.Len() {
				part := parts.Get(n)
				a.parts = append(a.parts, attribute{
					name: string(part.Name()), mode: optional, text: textOf(part, a.name+"."), checks: checksOf(part),
				})
			}
		}
		all = append(all, a)
	}
	return all
}

// checksOf returns the rules for a setting that is a text.
func checksOf(f protoreflect.FieldDescriptor) []validator.String {
	switch f.Name() {
	case "url":
		return []validator.String{sourceURL}
	case "fallback_urls":
		return []validator.String{endpointURL}
	case "endpoint_spiffe_id":
		return []validator.String{spiffeID}
	case "home_trust_domain":
		return []validator.String{trustDomainName}
	}
	return nil
}

// textOf describes a setting, which can be a part of another one.
func textOf(f protoreflect.FieldDescriptor, whole string) string {
	setting, _ := proto.GetExtension(f.Options(), ententev1.E_Setting).(*ententev1.Setting)
	name := string(f.Name())
	return cmp.Or(relationshipTexts[whole+name], relationshipTexts[name], sentence(setting.GetHelp()))
}
