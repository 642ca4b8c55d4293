package provider

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/internal/dnsname"
	"github.com/ententehq/entente/routing/plan"
)

var (
	trustDomainName = check{what: "the name of a trust domain", of: func(name string) error {
		_, err := bundle.ParseTrustDomain(name)
		return err
	}}
	hostedDomainName = check{what: "the name of a trust domain that can be hosted", of: func(name string) error {
		_, err := bundle.ParseHostedTrustDomain(name)
		return err
	}}
	endpointURL = check{what: "the URL of a bundle endpoint", of: func(text string) error {
		_, err := endpoint.ParseURL(text)
		if err != nil {
			return fmt.Errorf("%w; write https://HOST[:PORT][/PATH]", err)
		}
		return nil
	}}
	sourceURL = check{what: "the URL of a bundle endpoint or of a file", of: func(text string) error {
		if strings.HasPrefix(text, "file:///") {
			return nil // the server checks the name
		}
		return endpointURL.of(text)
	}}
	issuerURL = check{what: "the URL of an OpenID Connect issuer", of: func(text string) error {
		_, err := endpoint.ParseIssuer(text)
		return err
	}}
	dnsName  = check{what: "a DNS name", of: dnsname.Check}
	spiffeID = check{what: "a SPIFFE ID", of: func(id string) error {
		_, err := bundle.ParseID(id)
		return err
	}}
	serviceName = check{what: "the name of a service", of: plan.CheckServiceName}
	address     = check{what: "the address of an instance", of: func(text string) error {
		_, err := plan.ParseAddress(text)
		return err
	}}
	place = check{what: "a locality", of: func(text string) error {
		_, err := plan.ParseLocality(text)
		return err
	}}
)

var trustDomain = kind[*ententev1.Domain]{
	name: "trust_domain",
	text: "A trust domain that the cluster hosts: it is the authority for the domain, and publishes its bundle.",
	key:  []string{"trust_domain"},
	attributes: []attribute{
		{name: "trust_domain", mode: required, replaces: true, checks: []validator.String{hostedDomainName},
			text: "The name, such as `eu.example.org`."},
		{name: "endpoint_host", mode: optional, checks: []validator.String{dnsName},
			text: "The host name of the domain's own bundle endpoint."},
		{name: "refresh_hint", mode: defaulted, text: "How often others should fetch the bundle: 10s to 24h."},
		{name: "x509_svid_ttl", mode: defaulted, text: "The default and maximum lifetime of X509-SVIDs."},
		{name: "jwt_svid_ttl", mode: defaulted, text: "The default and maximum lifetime of JWT-SVIDs."},
		{name: "ca_ttl", mode: defaulted, text: "The lifetime of a member's signing certificate and JWT key."},
		{name: "oidc_issuer", mode: optional, checks: []validator.String{issuerURL},
			text: "The https URL of the OpenID Connect issuer, which is the `iss` of JWT-SVIDs."},
		{name: "name_constraints", mode: optional,
			text: "Whether new roots have a name constraint that permits SPIFFE IDs of the domain alone."},
		{name: "peer_min_refresh", mode: defaulted,
			text: "The interval below which the slowest reader of the bundle does not fetch it."},
		{name: "deletion_protection", mode: defaulted, on: true,
			text: "Whether the cluster refuses to delete the domain. Default: `true`; to destroy the resource, set " +
				"`false` and apply first. The home domain is always protected: it can be imported, and removed from " +
				"the state, and is never destroyed."},
		{name: "home", mode: computed, text: "Whether it is the home domain, which names the members."},
		{name: "create_time", mode: computed, text: "When it was created."},
	},
	kept: func(d *ententev1.Domain) string {
		switch {
		case d.GetHome():
			return "It is the home domain, which names the members of the cluster. To stop managing it here, use " +
				"terraform state rm, or a removed block with destroy = false."
		case d.GetDeletionProtection():
			return "Its deletion_protection is set. Set it to false and apply, and destroy the trust domain after that."
		}
		return ""
	},
	create: func(ctx context.Context, c *client.Client, wanted *ententev1.Domain, _ given) (
		*ententev1.Domain, []string, error,
	) {
		made, err := c.Domains().CreateDomain(ctx, &ententev1.CreateDomainRequest{Domain: wanted})
		return made, nil, err
	},
	read: func(ctx context.Context, c *client.Client, key *ententev1.Domain) (*ententev1.Domain, error) {
		return c.Domains().GetDomain(ctx, &ententev1.GetDomainRequest{TrustDomain: key.GetTrustDomain()})
	},
	update: func(ctx context.Context, c *client.Client, wanted *ententev1.Domain, mask []string, g given) (
		*ententev1.Domain, []string, error,
	) {
		is, err := c.Domains().UpdateDomain(ctx, &ententev1.UpdateDomainRequest{
			Domain: wanted, UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}, Etag: g.etag,
		})
		return is, nil, err
	},
	remove: func(ctx context.Context, c *client.Client, stored *ententev1.Domain, etag string) error {
		_, err := c.Domains().DeleteDomain(ctx,
			&ententev1.DeleteDomainRequest{TrustDomain: stored.GetTrustDomain(), Etag: etag})
		return err
	},
}
