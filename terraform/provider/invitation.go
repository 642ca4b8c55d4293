package provider

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/listplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/internal/token"
)

// Attributes of the resources for one-time tokens. Those that end in _wo are write-only.
const (
	secretName     = "secret_wo"
	tokenName      = "token_wo"
	ttlName        = "ttl"
	approveName    = "approve"
	advertiseName  = "advertise"
	homeDomainName = "home_trust_domain"
)

// secretText is the attribute with the secret of a token.
func secretText() schema.Attribute {
	return schema.StringAttribute{
		Required: true, WriteOnly: true, MarkdownDescription: "The secret of the token, from the ephemeral resource " +
			"`entente_secret`. The cluster receives its SHA-256 alone; it is in neither plan nor state.",
	}
}

// ttlText is the attribute with the lifetime of a token.
func ttlText(of string) schema.Attribute {
	return schema.StringAttribute{
		Optional: true, CustomType: timetypes.GoDurationType{}, MarkdownDescription: of,
		PlanModifiers: []planmodifier.String{same{sameDuration}, stringplanmodifier.RequiresReplace()},
	}
}

// digest returns the SHA-256 of the secret in the configuration.
func (g given) digest(ctx context.Context) ([]byte, error) {
	text, err := g.text(ctx, secretName)
	if err != nil {
		return nil, err
	}
	secret, err := parseSecret(text)
	sum := sha256.Sum256(secret)
	return sum[:], err
}

// parseSecret returns the bytes of a secret as entente_secret has it. The error contains no part of it.
func parseSecret(text string) ([]byte, error) {
	secret, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(secret) != secretBytes {
		return nil, fmt.Errorf("the secret is not the value of an ephemeral entente_secret, which is %d random bytes "+
			"in unpadded base64url", secretBytes)
	}
	return secret, nil
}

// duration returns a duration of the configuration, or nil if it has none.
func (g given) duration(ctx context.Context, name string) (*durationpb.Duration, error) {
	text, err := g.text(ctx, name)
	if err != nil || text == "" {
		return nil, err
	}
	d, err := time.ParseDuration(text)
	return durationpb.New(d), err
}

// over reports whether the time of a token is up.
func over(expires *timestamppb.Timestamp) bool {
	return expires.IsValid() && !time.Now().Before(expires.AsTime())
}

var federationInvitation = kind[*ententev1.Invitation]{
	name: "federation_invitation",
	text: "The inviter's half of an agreement between two clusters. The cluster of the foreign trust domain accepts " +
		"it, once, as `entente_federation_agreement`. An invitation that is used or has expired stays in the state, " +
		"so that no plan makes another one; `terraform apply -replace` does. Destroying a used one ends its agreement.",
	key: []string{"id"}, agreesOn: "foreign_trust_domain",
	attributes: []attribute{
		{name: "id", mode: computed, text: "The ID of the invitation."},
		{name: "trust_domain", mode: required, replaces: true, checks: []validator.String{trustDomainName},
			text: "The hosted trust domain that is offered."},
		{name: "foreign_trust_domain", mode: required, replaces: true, checks: []validator.String{trustDomainName},
			text: "The only trust domain that can accept."},
		{name: "foreign_home_trust_domain", mode: optional, replaces: true,
			checks: []validator.String{trustDomainName},
			text: "The home trust domain of the accepting cluster, if it is another one and has no relationship " +
				"here: it is trusted too."},
		{name: "approved", mode: defaulted, replaces: true,
			text: "Whether this side approves the agreement in advance. Default: `false`, and an operator approves " +
				"it once it is accepted."},
		{name: "advertised", mode: optional, replaces: true,
			text: "`HOST:PORT` at which the other side reaches the cluster ports, such as that of a load balancer. " +
				"Default: those of the members."},
		{name: "public_part", mode: computed,
			text: "The token without its secret, which the function `invitation_token` joins with it. It is not " +
				"secret."},
		{name: "create_time", mode: computed, text: "When it was created."},
		{name: "expire_time", mode: computed, text: "Until when it can be accepted."},
		{name: "state", mode: computed, text: "`open`, `used`, `revoked` or `expired`, when it was last read."},
	},
	besides: map[string]schema.Attribute{
		secretName: secretText(),
		ttlName:    ttlText("How long it can be accepted, 7 days at most. Default: `1h`."),
	},
	create: func(ctx context.Context, c *client.Client, wanted *ententev1.Invitation, g given) (
		*ententev1.Invitation, []string, error,
	) {
		digest, err := g.digest(ctx)
		if err != nil {
			return nil, nil, err
		}
		ttl, err := g.duration(ctx, ttlName)
		if err != nil {
			return nil, nil, err
		}
		made, err := c.Federation().CreateInvitation(ctx, &ententev1.CreateInvitationRequest{
			TrustDomain: wanted.GetTrustDomain(), ForeignTrustDomain: wanted.GetForeignTrustDomain(),
			ForeignHomeTrustDomain: wanted.GetForeignHomeTrustDomain(), Ttl: ttl, Approve: wanted.GetApproved(),
			Advertise: wanted.GetAdvertised(), SecretSha256: digest,
		})
		return made.GetInvitation(), made.GetWarnings(), err
	},
	read: func(ctx context.Context, c *client.Client, key *ententev1.Invitation) (*ententev1.Invitation, error) {
		is, err := c.Federation().GetInvitation(ctx, &ententev1.GetInvitationRequest{Id: key.GetId()})
		if errors.Is(err, client.ErrNotFound) && over(key.GetExpireTime()) {
			return key, nil // the cluster keeps one for a day after it has expired
		}
		return is, err
	},
	remove: func(ctx context.Context, c *client.Client, stored *ententev1.Invitation, _ string) error {
		is, err := c.Federation().GetRelationship(ctx,
			&ententev1.GetRelationshipRequest{TrustDomain: stored.GetForeignTrustDomain()})
		if err == nil && is.GetAgreement().GetId() == stored.GetId() {
			_, err = c.Federation().DeleteRelationship(ctx, &ententev1.DeleteRelationshipRequest{
				TrustDomain: stored.GetForeignTrustDomain(), Etag: is.GetEtag(),
			})
			return err
		}
		if err != nil && !errors.Is(err, client.ErrNotFound) {
			return err
		}
		_, err = c.Federation().RevokeInvitation(ctx, &ententev1.RevokeInvitationRequest{Id: stored.GetId()})
		if errors.Is(err, client.ErrFailedPrecondition) {
			return nil // it is used, and its agreement has ended
		}
		return err
	},
}

var federationAgreement = kind[*ententev1.Relationship]{
	name: "federation_agreement",
	text: "The accepting half of an agreement between two clusters: the invitation of the other one is accepted, and " +
		"each side has a relationship with the other. A trust domain has either an agreement or an " +
		"`entente_federation_relationship`. Destroying it ends the agreement on both sides.",
	key: []string{"trust_domain"}, agreesOn: "trust_domain",
	attributes: []attribute{
		{name: "trust_domain", mode: required, replaces: true, checks: []validator.String{trustDomainName},
			text: "The trust domain of the inviting cluster. An invitation of another one is refused."},
		{name: "state", mode: computed, text: "The state of the relationship, when it was last read: `pending` until " +
			"both sides have approved."},
		{name: "url", mode: computed, text: "Where the bundle is served, as the other side announced it last."},
		{name: "profile", mode: computed, text: "How the endpoint authenticates."},
		{name: "create_time", mode: computed, text: "When it was accepted."},
	},
	besides: map[string]schema.Attribute{
		tokenName: schema.StringAttribute{
			Required: true, WriteOnly: true, MarkdownDescription: "The token of the invitation, of the function " +
				"`invitation_token`. It is sent once, when the agreement is made, and is in neither plan nor state.",
		},
		approveName: schema.BoolAttribute{
			Optional: true, MarkdownDescription: "Whether this side approves the agreement. Default: `false`, and an " +
				"operator approves it. What is approved cannot be taken back other than by destroying it.",
		},
		homeDomainName: schema.StringAttribute{
			Optional: true, MarkdownDescription: "The home trust domain of the inviting cluster, if it is another " +
				"one and has no relationship here: it is trusted too.",
			Validators:    []validator.String{trustDomainName},
			PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()},
		},
		advertiseName: schema.ListAttribute{
			ElementType: types.StringType, Optional: true, MarkdownDescription: "`HOST:PORT` at which the other side " +
				"reaches the cluster ports here. Default: those of the members.",
			PlanModifiers: []planmodifier.List{listplanmodifier.RequiresReplace()},
		},
	},
	create: func(ctx context.Context, c *client.Client, wanted *ententev1.Relationship, g given) (
		*ententev1.Relationship, []string, error,
	) {
		text, err := g.text(ctx, tokenName)
		if err != nil {
			return nil, nil, err
		}
		if err := checkInviter(text, wanted.GetTrustDomain()); err != nil {
			return nil, nil, err
		}
		r := &ententev1.RedeemInvitationRequest{Token: text}
		var approve *bool
		if err := errors.Join(toError(g.config.GetAttribute(ctx, path.Root(approveName), &approve)),
			toError(g.config.GetAttribute(ctx, path.Root(advertiseName), &r.Advertise))); err != nil {
			return nil, nil, err
		}
		r.Approve = approve != nil && *approve
		if r.HomeTrustDomain, err = g.text(ctx, homeDomainName); err != nil {
			return nil, nil, err
		}
		made, err := c.Federation().RedeemInvitation(ctx, r)
		return made.GetRelationship(), made.GetWarnings(), err
	},
	read: func(ctx context.Context, c *client.Client, key *ententev1.Relationship) (*ententev1.Relationship, error) {
		is, err := c.Federation().GetRelationship(ctx,
			&ententev1.GetRelationshipRequest{TrustDomain: key.GetTrustDomain()})
		if err == nil && is.GetAgreement() == nil {
			return nil, fmt.Errorf("the relationship with %s is not part of an agreement: manage it as "+
				"entente_federation_relationship, or delete it and accept an invitation", key.GetTrustDomain())
		}
		return is, err
	},
	update: func(ctx context.Context, c *client.Client, wanted *ententev1.Relationship, _ []string, g given) (
		*ententev1.Relationship, []string, error,
	) {
		var approve *bool
		if err := toError(g.config.GetAttribute(ctx, path.Root(approveName), &approve)); err != nil {
			return nil, nil, err
		}
		name := wanted.GetTrustDomain()
		if approve != nil && *approve && g.moved[approveName] {
			is, err := c.Federation().ApproveRelationship(ctx, &ententev1.ApproveRelationshipRequest{TrustDomain: name})
			return is, nil, err
		}
		is, err := c.Federation().GetRelationship(ctx, &ententev1.GetRelationshipRequest{TrustDomain: name})
		return is, nil, err
	},
	remove: func(ctx context.Context, c *client.Client, stored *ententev1.Relationship, etag string) error {
		_, err := c.Federation().DeleteRelationship(ctx,
			&ententev1.DeleteRelationshipRequest{TrustDomain: stored.GetTrustDomain(), Etag: etag})
		return err
	},
}

// checkInviter returns an error unless a token is an invitation of a trust domain. It runs before the token is sent.
func checkInviter(text, trustDomain string) error {
	var content statev1.InvitationContent
	if err := token.Decode(token.InvitationPrefix, text, &content); err != nil {
		return fmt.Errorf("the invitation in %s cannot be read: %w; join it with provider::entente::invitation_token",
			tokenName, err)
	}
	if content.GetTrustDomain() != trustDomain {
		return fmt.Errorf("the invitation in %s is of %s, and trust_domain is %s: nothing was sent", tokenName,
			content.GetTrustDomain(), trustDomain)
	}
	return nil
}

var joinToken = kind[*ententev1.JoinToken]{
	name: "join_token",
	text: "A token that admits one member to the cluster, once. The function `invitation_token` joins its public " +
		"part with the secret into the token for the member's configuration. A token that is used or has expired " +
		"stays in the state, so that no plan makes another one; `terraform apply -replace` does. Destroying it does " +
		"not remove the member.",
	key: []string{"member_id"},
	attributes: []attribute{
		{name: "member_id", mode: required, replaces: true, text: "The ID of the only member that it admits."},
		{name: "auto_approve", mode: defaulted, replaces: true,
			text: "Whether the holder of the token becomes a member without an approval. Default: `false`."},
		{name: "id", mode: computed, text: "The ID of the token."},
		{name: "public_part", mode: computed, text: "The token without its secret. It is not secret."},
		{name: "create_time", mode: computed, text: "When it was created."},
		{name: "expire_time", mode: computed, text: "Until when it admits a member."},
	},
	besides: map[string]schema.Attribute{
		secretName: secretText(),
		ttlName:    ttlText("How long it is valid, 24 hours at most. Default: `10m`."),
	},
	create: func(ctx context.Context, c *client.Client, wanted *ententev1.JoinToken, g given) (
		*ententev1.JoinToken, []string, error,
	) {
		digest, err := g.digest(ctx)
		if err != nil {
			return nil, nil, err
		}
		ttl, err := g.duration(ctx, ttlName)
		if err != nil {
			return nil, nil, err
		}
		made, err := c.Cluster().CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{
			MemberId: wanted.GetMemberId(), AutoApprove: wanted.GetAutoApprove(), Ttl: ttl, SecretSha256: digest,
		})
		return made.GetJoinToken(), nil, err
	},
	read: func(ctx context.Context, c *client.Client, key *ententev1.JoinToken) (*ententev1.JoinToken, error) {
		is, err := tokenOf(ctx, c, key)
		if !errors.Is(err, client.ErrNotFound) || key.GetId() == "" {
			return is, err
		}
		members, err := c.Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{})
		if err != nil {
			return nil, err
		}
		for _, m := range members.GetMembers() {
			if m.GetId() == key.GetMemberId() {
				return key, nil // it is used
			}
		}
		if over(key.GetExpireTime()) {
			return key, nil
		}
		return nil, client.ErrNotFound
	},
	remove: func(ctx context.Context, c *client.Client, stored *ententev1.JoinToken, _ string) error {
		if _, err := tokenOf(ctx, c, stored); err != nil {
			return err
		}
		_, err := c.Cluster().RevokeJoinToken(ctx, &ententev1.RevokeJoinTokenRequest{MemberId: stored.GetMemberId()})
		return err
	},
}

// tokenOf returns a token that can still admit a member: that of an ID, or else that of a member.
func tokenOf(ctx context.Context, c *client.Client, key *ententev1.JoinToken) (*ententev1.JoinToken, error) {
	all, err := c.Cluster().ListJoinTokens(ctx, &ententev1.ListJoinTokensRequest{})
	if err != nil {
		return nil, err
	}
	for _, t := range all.GetJoinTokens() {
		if t.GetMemberId() == key.GetMemberId() && (key.GetId() == "" || t.GetId() == key.GetId()) {
			return t, nil
		}
	}
	return nil, client.ErrNotFound
}
