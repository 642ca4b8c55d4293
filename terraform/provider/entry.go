package provider

import (
	"context"
	"slices"

	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/registration/entry"
)

var (
	entryID  = check{what: "the ID of an entry", of: func(id string) error { return entry.CheckName("id", id) }}
	selector = check{what: "a selector", of: func(s string) error {
		_, err := entry.ParseSelectors("it", []string{s})
		return err
	}}
)

var registrationEntry = kind[*ententev1.Entry]{
	name: "registration_entry",
	text: "A SPIFFE ID for the workloads with some selectors, on one agent or on those that are selected. It is " +
		"issued while who applied it last may issue that ID.",
	key: []string{"id"},
	attributes: []attribute{
		{name: "id", mode: required, replaces: true, checks: []validator.String{entryID},
			text: "The ID of the entry, such as `web`."},
		{name: "spiffe_id", mode: required, checks: []validator.String{spiffeID},
			text: "The SPIFFE ID, in a hosted trust domain."},
		{name: "agent", mode: optional, text: "The agent that attests the workloads. Excludes `parent_selectors`."},
		{name: "parent_selectors", mode: optional, checks: []validator.String{selector},
			text: "Every agent that has all of these selectors instead, such as `agent:attestation:k8s_psat`."},
		{name: "selectors", mode: required, checks: []validator.String{selector},
			text: "What a workload must have, all of it, such as `unix:uid:1000` or `k8s:ns:shop`."},
		{name: "x509_svid_ttl", mode: optional, text: "The lifetime of X509-SVIDs. Default: that of the trust domain."},
		{name: "jwt_svid_ttl", mode: optional, text: "The lifetime of JWT-SVIDs. Default: that of the trust domain."},
		{name: "dns_names", mode: optional, checks: []validator.String{dnsName}, text: "DNS names of X509-SVIDs."},
		{name: "federates_with", mode: optional, checks: []validator.String{trustDomainName},
			text: "Foreign trust domains whose bundles the workloads receive. Excludes `federates_with_all`."},
		{name: "federates_with_all", mode: optional, text: "The bundles of all foreign trust domains instead."},
		{name: "hint", mode: optional, text: "What the workload is told, to tell several SVIDs apart."},
		{name: "create_time", mode: computed, text: "When it was created."},
	},
	valid: func(wanted *ententev1.Entry) error {
		_, err := entry.Parse(wanted)
		return err
	},
	create: func(ctx context.Context, c *client.Client, wanted *ententev1.Entry, _ given) (
		*ententev1.Entry, []string, error,
	) {
		made, err := c.Entries().CreateEntry(ctx, &ententev1.CreateEntryRequest{Entry: wanted})
		return inOrder(made, wanted), stopped(made), err
	},
	read: func(ctx context.Context, c *client.Client, key *ententev1.Entry) (*ententev1.Entry, error) {
		is, err := c.Entries().GetEntry(ctx, &ententev1.GetEntryRequest{Id: key.GetId()})
		return inOrder(is, key), err
	},
	update: func(ctx context.Context, c *client.Client, wanted *ententev1.Entry, mask []string, g given) (
		*ententev1.Entry, []string, error,
	) {
		is, err := c.Entries().UpdateEntry(ctx, &ententev1.UpdateEntryRequest{
			Entry: wanted, UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}, Etag: g.etag,
		})
		return inOrder(is, wanted), stopped(is), err
	},
	remove: func(ctx context.Context, c *client.Client, stored *ententev1.Entry, etag string) error {
		_, err := c.Entries().DeleteEntry(ctx, &ententev1.DeleteEntryRequest{Id: stored.GetId(), Etag: etag})
		return err
	},
}

// inOrder gives lists the order of the configuration where they have the same elements: the server sorts them.
func inOrder(is, wanted *ententev1.Entry) *ententev1.Entry {
	if is == nil {
		return nil
	}
	for _, list := range []struct{ is, wanted *[]string }{
		{&is.Selectors, &wanted.Selectors}, {&is.ParentSelectors, &wanted.ParentSelectors},
		{&is.FederatesWith, &wanted.FederatesWith},
	} {
		if slices.Equal(slices.Sorted(slices.Values(*list.is)), slices.Sorted(slices.Values(*list.wanted))) {
			*list.is = *list.wanted
		}
	}
	return is
}

// stopped warns of an entry by which nothing is issued.
func stopped(e *ententev1.Entry) []string {
	if e.GetStopped() == "" {
		return nil
	}
	return []string{"Nothing is issued by the entry: " + e.GetStopped()}
}
