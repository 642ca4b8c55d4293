package authority

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
)

// taintEffects returns what a taint would do, from its outcome in a dry run.
func taintEffects(out outcome, id string, alive []string) []*ententev1.Effect {
	was, err := plan.Find(out.before.Authorities, id)
	if err != nil || was.State == plan.Tainted {
		return nil
	}
	is, err := plan.Find(out.after.Authorities, id)
	if err != nil {
		return []*ententev1.Effect{{
			Kind: "authority", Subject: id,
			Detail: fmt.Sprintf("%s, %s of member %s: is removed; it never signed", was.Kind, was.State, was.Member),
		}}
	}
	effects := []*ententev1.Effect{stopsSigning(was), {
		Kind: "svids", Subject: "signed by " + id,
		Detail: "are renewed by members and by clients that watch; the others stay valid until then",
		Time:   timestamppb.New(is.Leaves(out.after.Grace)),
	}}
	return append(effects, signingEffects(out, is.Kind, alive)...)
}

// stopsSigning is the effect on an authority that signs no more.
func stopsSigning(was plan.Authority) *ententev1.Effect {
	return &ententev1.Effect{
		Kind: "authority", Subject: was.ID,
		Detail: fmt.Sprintf("%s, %s of member %s: stops signing", was.Kind, was.State, was.Member),
	}
}

// signingEffects returns what remains to sign for a domain.
func signingEffects(out outcome, kind plan.Kind, alive []string) (effects []*ententev1.Effect) {
	for _, warning := range signersWarning(out.after, kind, alive) {
		effects = append(effects, &ententev1.Effect{
			Kind: "signing", Subject: out.domain.GetTrustDomain(), Detail: strings.TrimSuffix(warning, "."),
		})
	}
	return effects
}

// revokeEffects returns what a revocation would do, from its outcome in a dry run.
func revokeEffects(out outcome, alive []string) []*ententev1.Effect {
	var effects []*ententev1.Effect
	kinds := map[plan.Kind]bool{}
	leaves := false
	for _, id := range out.ids(plan.Revoke) {
		was, err := plan.Find(out.before.Authorities, id)
		if err != nil {
			continue
		}
		kinds[was.Kind] = true
		effects = append(effects, stopsSigning(was))
		is, err := plan.Find(out.after.Authorities, id)
		if err == nil && is.UpstreamAnchor && !is.AnchorRevoked {
			effects = append(effects, &ententev1.Effect{
				Kind: "svids", Subject: "signed by " + id,
				Detail: "stay valid for verifiers, since the upstream's root stays in the bundle, until",
				Time:   timestamppb.New(is.Leaves(out.after.Grace)),
			})
			continue
		}
		leaves = true
		effects = append(effects, &ententev1.Effect{
			Kind: "svids", Subject: "signed by " + id,
			Detail: "are refused by all who have the new bundle; members and clients that watch renew at once",
		})
	}
	if leaves {
		effects = append(effects, &ententev1.Effect{
			Kind: "peer", Subject: "every reader of the bundle",
			Detail: fmt.Sprintf("gets the change at once by stream, and at the refresh hint (%v) by polling",
				out.after.Settings.RefreshHint),
		})
	}
	for _, kind := range plan.Kinds {
		if kinds[kind] {
			effects = append(effects, signingEffects(out, kind, alive)...)
		}
	}
	return slices.Clip(effects)
}
