package authority

import (
	"fmt"
	"github.com/ententehq/entente/authority/plan"
	"slices"
	"strings"
	"time"
)

// taintRemarks say what a taint did, and what it left.
func taintRemarks(before, after plan.Situation, id string, alive []string) []string {
	was, _ := plan.Find(before.Authorities, id)
	is, err := plan.Find(after.Authorities, id)
	switch {
	case err != nil:
		return []string{"It never signed, and is gone."}
	case was.State == plan.Tainted:
		return []string{"It was tainted already; nothing was changed."}
	}
	remarks := []string{
		"It signs no more. Members renew their own SVIDs at once, and whoever watches authorities is told to renew what it signed.",
		fmt.Sprintf("What it signed stays valid until it expires, at the latest at %s; 'entente authority revoke %s' ends that.", clock(is.Leaves(after.Grace)), id),
	}
	return append(remarks, pause(after, is.Kind, alive)...)
}

// pause says that nobody can sign now, or nobody who is heard from.
func pause(s plan.Situation, kind plan.Kind, alive []string) []string {
	if s.Signable(kind) {
		heard := func(a plan.Authority) bool {
			return a.Kind == kind && a.State == plan.Active && slices.Contains(alive, a.Member)
		}
		if slices.ContainsFunc(s.Authorities, heard) {
			return nil
		}
		return []string{fmt.Sprintf("The other active %s authorities are those of members that are not heard from. If they stay away, 'entente authority activate ID' has a prepared one sign before everybody knows it.", kind)}
	}
	return []string{fmt.Sprintf("The domain has no other active %s authority: a new one is being prepared and signs as soon as it is there, though not everybody can know it at once.", kind)}
}

// revokeRemarks say what a revocation did, and what it could not do.
func revokeRemarks(did steered, alive []string) []string {
	revoked := did.ids(plan.Revoke)
	if len(did.carried) == 0 && len(revoked) == 0 && did.domain != nil {
		return []string{"No authority was there to be revoked, or it was already."}
	}
	var remarks, staying []string
	kinds := map[plan.Kind]bool{}
	var last time.Time
	gone := false
	for _, id := range revoked {
		a, err := plan.Find(did.after.Authorities, id)
		if err != nil {
			continue
		}
		kinds[a.Kind] = true
		if !a.UpstreamAnchor || a.AnchorRevoked {
			gone = true
			continue
		}
		staying = append(staying, id)
		if leaves := a.Leaves(did.after.Grace); leaves.After(last) {
			last = leaves
		}
	}
	if gone {
		remarks = append(remarks, fmt.Sprintf("What verified it left the bundle%s. Who watches the bundle has that at once; who fetches it, at the refresh hint (%v).", withSequence(did.sequence()), did.after.Settings.RefreshHint))
	}
	if len(revoked) > 1 {
		remarks = append(remarks, fmt.Sprintf("%d authorities went with the anchor: %s.", len(revoked), strings.Join(revoked, ", ")))
	}
	if len(staying) > 0 {
		remarks = append(remarks, fmt.Sprintf("It signs no more, but its anchor belongs to the upstream and stays in the bundle, and SPIFFE verifiers read no revocation list: they accept what it signed until that expires, at the latest at %s, or until the anchor is revoked too by 'entente authority revoke --anchor'.", clock(last)))
	}
	remarks = append(remarks, "Members renew their own SVIDs at once, and whoever watches authorities is told to renew.")
	for _, kind := range plan.Kinds {
		if kinds[kind] {
			remarks = append(remarks, pause(did.after, kind, alive)...)
		}
	}
	return remarks
}

func withSequence(sequence uint64) string {
	if sequence == 0 {
		return ""
	}
	return fmt.Sprintf(" with sequence %d", sequence)
}
