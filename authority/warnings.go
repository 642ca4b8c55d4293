package authority

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ententehq/entente/authority/plan"
)

// renewText is the sentence on who renews what a tainted or revoked authority signed.
const renewText = "Members renew their own SVIDs at once, and clients that watch authorities are notified to renew " +
	"what it signed."

// activateWarnings returns what an activation before its time causes.
func activateWarnings(out outcome, id string, alive []string) (warnings []string, err error) {
	a, err := plan.Find(out.before.Authorities, id)
	if err != nil {
		return nil, err
	}
	if out.before.Now.Before(a.Ready) {
		warnings = append(
			warnings,
			fmt.Sprintf("Not every reader can know it yet: until %s, a reader that has not fetched the "+
				"bundle since it was published refuses what it signs.", timeText(a.Ready)),
		)
	}
	if peers := out.before.PeersSentence(a); peers != "" {
		warnings = append(warnings, peers)
	}
	return append(warnings, silentWarning(a, alive, "other members sign until it is back, if they can")...), nil
}

// taintWarnings returns what a taint did and what it left.
func taintWarnings(out outcome, id string, alive []string) []string {
	was, _ := plan.Find(out.before.Authorities, id)
	is, err := plan.Find(out.after.Authorities, id)
	switch {
	case err != nil:
		return []string{"It never signed, and was removed."}
	case was.State == plan.Tainted:
		return []string{"It was already tainted; nothing was changed."}
	}
	warnings := []string{
		"It no longer signs. " + renewText,
		fmt.Sprintf(
			"What it signed stays valid until it expires, at the latest at %s; 'entente authority revoke %s' "+
				"ends that.",
			timeText(is.Leaves(out.after.Grace)), id),
	}
	return slices.Concat(warnings, signersWarning(out.after, is.Kind, alive), silentWarnings(out, plan.Taint, alive))
}

// signersWarning warns if no authority of the kind can sign now, or only those of members that do not respond.
func signersWarning(s plan.Situation, kind plan.Kind, alive []string) []string {
	if !s.Signable(kind) {
		return []string{
			fmt.Sprintf(
				"The domain has no other active %s authority: a new one is being prepared and signs as soon as "+
					"it exists, before every reader can know it.",
				kind,
			),
		}
	}
	if slices.ContainsFunc(s.Authorities, func(a plan.Authority) bool {
		return a.Kind == kind && a.State == plan.Active && slices.Contains(alive, a.Member)
	}) {
		return nil
	}
	return []string{
		fmt.Sprintf("The other active %s authorities belong to members that do not respond. If they stay away, "+
			"'entente authority activate ID' activates a prepared one before every reader knows it.", kind),
	}
}

// revokeWarnings returns what a revocation did and what it could not do.
func revokeWarnings(out outcome, alive []string) (warnings []string) {
	revoked := out.ids(plan.Revoke)
	if len(out.steps) == 0 {
		return []string{"There was no authority to revoke, or it was already revoked."}
	}
	var staying []string
	kinds := map[plan.Kind]bool{}
	var last time.Time
	gone := false
	for _, id := range revoked {
		a, err := plan.Find(out.after.Authorities, id)
		if err != nil {
			continue
		}
		kinds[a.Kind] = true
		if !a.UpstreamAnchor || a.AnchorRevoked {
			gone = true
			continue
		}
		staying = append(staying, id)
		if leaves := a.Leaves(out.after.Grace); leaves.After(last) {
			last = leaves
		}
	}
	if gone {
		sequence := ""
		if n := out.sequence(); n > 0 {
			sequence = fmt.Sprintf(" with sequence %d", n)
		}
		warnings = append(
			warnings,
			fmt.Sprintf("What verified it left the bundle%s. Clients that watch the bundle have that at once; "+
				"those that fetch it, at the refresh hint (%v).", sequence, out.after.Settings.RefreshHint),
		)
	}
	if len(revoked) > 1 {
		warnings = append(warnings, fmt.Sprintf("%d authorities were revoked with the anchor: %s.",
			len(revoked), strings.Join(revoked, ", ")))
	}
	if len(staying) > 0 {
		warnings = append(
			warnings,
			fmt.Sprintf("It no longer signs, but its anchor belongs to the upstream and stays in the bundle, "+
				"and SPIFFE verifiers read no revocation lists: they accept what it signed until that expires, at "+
				"the latest at %s, "+
				"or until 'entente authority revoke --anchor' revokes the anchor too.", timeText(last)),
		)
	}
	warnings = append(warnings, renewText)
	for _, kind := range plan.Kinds {
		if kinds[kind] {
			warnings = append(warnings, signersWarning(out.after, kind, alive)...)
		}
	}
	return warnings
}

// silentWarning warns if the member of an authority does not respond.
func silentWarning(a plan.Authority, alive []string, consequence string) []string {
	if slices.Contains(alive, a.Member) {
		return nil
	}
	return []string{fmt.Sprintf("Member %s does not respond: %s.", a.Member, consequence)}
}

// silentWarnings warns of members that may not know that their authority, which was active, was ended by the verb.
func silentWarnings(out outcome, verb plan.Verb, alive []string) (warnings []string) {
	s := out.before
	for _, a := range s.Authorities {
		if a.State == plan.Active && slices.Contains(out.ids(verb), a.ID) {
			warnings = append(warnings, silentWarning(a, alive, fmt.Sprintf(
				"if it runs without contact to the leader, it can sign until %s (signing_grace is %v)",
				timeText(s.Now.Add(s.Grace)), s.Grace))...)
		}
	}
	return warnings
}
