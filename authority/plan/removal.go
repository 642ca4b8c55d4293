package plan

import (
	"fmt"
	"time"
)

// Remaining returns until when verifiers accept what an authority of a removed member signed, and what ends that
// sooner. The time is zero if they no longer accept it once they have the new bundle.
func (a Authority) Remaining(grace time.Duration) (until time.Time, detail string) {
	switch {
	case a.State == Retiring, a.State == Tainted:
		return a.Leaves(grace), fmt.Sprintf("a process of the member that still runs signs with it for up to %v after "+
			"its last contact with the leader; `entente authority revoke %s` ends it now", grace, a.ID)
	case a.State == Revoked && a.Kind == X509 && a.UpstreamAnchor && !a.AnchorRevoked:
		return a.NotAfter, "it is revoked, but its anchor stays in the bundle; `entente authority revoke --anchor` " +
			"ends it now, with a key ID that `entente authority anchors` shows"
	}
	return time.Time{}, ""
}

// ForRemoved returns what to do with the authorities of a member that is removed. They retire: what they signed stays
// valid until it expires. Those of a compromised member are revoked, with everything that they signed.
func ForRemoved(authorities []Authority, member string, compromised bool) (actions []Action) {
	for _, a := range authorities {
		if a.Member != member {
			continue
		}
		action := Action{Kind: a.Kind, ID: a.ID}
		switch {
		case compromised:
			if a.State == Revoked {
				continue
			}
			action.Do, action.Why = Revoke, "its member was removed as compromised"
		case a.State == Prepared:
			action.Do, action.Why = End, "its member was removed, and it never signed"
		case a.State == Active:
			action.Do, action.Why = Retire, "its member was removed"
		default:
			continue
		}
		actions = append(actions, action)
	}
	return actions
}
