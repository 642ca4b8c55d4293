package authority

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

func showCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show an authority or an anchor, with all that a list cuts",
		Long: `Show an authority, with what it waits for and which peers have not acknowledged it. ID can also be the
key ID or the SHA-256 of an anchor, as 'entente authority anchors -o json' prints them.`,
		Example: `  entente authority show 6f1c2a9b4d3e5f60`,
		Args:    cli.Arguments("ID"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			list, err := member.Authorities().ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{})
			if err != nil {
				return err
			}
			for _, x := range list.GetAuthorities() {
				if x.GetId() == args[0] {
					return env.Print(x, authorityFields(x))
				}
			}
			anchors, err := member.Authorities().ListAnchors(ctx, &ententev1.ListAnchorsRequest{})
			if err != nil {
				return err
			}
			for _, x := range anchors.GetAnchors() {
				if strings.EqualFold(x.GetKeyId(), args[0]) || strings.EqualFold(x.GetSha256(), args[0]) {
					return env.Print(x, anchorFields(x))
				}
			}
			return cli.NotFoundf("there is no authority and no anchor %s that is visible to you: see "+
				"'entente authority list' and 'entente authority anchors'", cli.Printable(args[0]))
		}),
	}
}

func authorityFields(x *ententev1.Authority) func(*cli.Table) {
	return func(t *cli.Table) {
		t.Field("id", x.GetId())
		t.Field("trust domain", x.GetTrustDomain())
		t.Field("member", x.GetMember())
		t.Field("kind", cli.EnumName(x.GetKind()))
		t.Field("state", cli.EnumName(x.GetState()))
		t.Field("key id", x.GetKeyId())
		t.Field("valid from", cli.Time(x.GetNotBefore()))
		t.Field("expires", cli.Time(x.GetNotAfter()))
		t.Field("prepared", cli.Time(x.GetPrepareTime()))
		t.Field("activated", cli.Time(x.GetActivateTime()))
		t.Field("retired", cli.Time(x.GetRetireTime()))
		t.Field("tainted", cli.Time(x.GetTaintTime()))
		t.Field("revoked", cli.Time(x.GetRevokeTime()))
		t.Field("next", cli.Time(x.GetNextTime()))
		t.Field("waits for", x.GetWaitsFor())
		for _, p := range x.GetUnacknowledged() {
			t.Field("not at "+p.GetHomeTrustDomain(), unacknowledged(p))
		}
	}
}

// unacknowledged describes what a peer without the authority has.
func unacknowledged(p *ententev1.UnacknowledgedPeer) string {
	line := fmt.Sprintf("acknowledged sequence %d", p.GetSequence())
	if p.GetSequence() == 0 {
		line = "nothing acknowledged yet"
	}
	if p.GetRefusal() != "" {
		line += ", and refused a later one: " + p.GetRefusal()
	}
	if !p.GetConnected() {
		line += ", and has no stream"
	}
	return line
}

func anchorFields(x *ententev1.Anchor) func(*cli.Table) {
	return func(t *cli.Table) {
		t.Field("key id", x.GetKeyId())
		t.Field("sha256", x.GetSha256())
		t.Field("trust domain", x.GetTrustDomain())
		t.Field("state", cli.EnumName(x.GetState()))
		t.Field("source", sourceOf(x))
		t.Field("subject", x.GetSubject())
		t.Field("valid from", cli.Time(x.GetNotBefore()))
		t.Field("expires", cli.Time(x.GetNotAfter()))
		t.Field("authorities", x.GetAuthorities())
		t.Field("first seen by", x.GetSeenBy())
		t.Field("first seen", cli.Time(x.GetSeenTime()))
		t.Field("published", cli.Time(x.GetPublishTime()))
		t.Field("ready", cli.Time(x.GetReadyTime()))
		t.Field("unlisted", cli.Time(x.GetUnlistedTime()))
		t.Field("detail", x.GetDetail())
	}
}
