package plan

import (
	"errors"
	"fmt"
	"time"
)

// ErrNoAuthority is wrapped when the named authority does not exist.
var ErrNoAuthority = errors.New("there is no authority")

// PlanTaint says what tainting an authority does: it signs no more. One that never signed ends. all are those of the
// domain.
func TaintAuthority(all []Authority, id string) ([]Action, error) {
	a, err := Find(all, id)
	if err != nil {
		return nil, err
	}
	action := Action{Do: Taint, Kind: a.Kind, ID: a.ID, Why: "an operator tainted it"}
	switch a.State {
	case Revoked:
		return nil, fmt.Errorf("authority %s is revoked, which is more than tainted", id)
	case Tainted:
		return nil, nil
	case Prepared:
		action.Do, action.Why = End, "an operator tainted it, and it never signed"
	}
	return []Action{action}, nil
}

// PlanRevoke says what revoking an authority does. An anchor of the member's own goes with it, and so does all below that
// anchor: whoever has the one key has had access to the other.
func RevokeAuthority(all []Authority, id string) ([]Action, error) {
	a, err := Find(all, id)
	if err != nil {
		return nil, err
	}
	if a.Kind == X509 && !a.UpstreamAnchor {
		return planRevokeBelow(all, a.Anchor, id), nil
	}
	if a.State == Revoked {
		return nil, nil
	}
	return []Action{{Do: Revoke, Kind: a.Kind, ID: a.ID, Why: "an operator revoked it"}}, nil
}

// PlanRevokeAnchor says what revoking an anchor does to the authorities below it. Without force it refuses to take the
// last anchor of an upstream that anybody can sign below: nobody could sign before the upstream has another one, for this
// cluster makes none there.
func RevokeAnchor(all []Authority, anchor string, force bool) ([]Action, error) {
	upstream, others := false, false
	for _, a := range all {
		switch {
		case a.Anchor == anchor:
			upstream = upstream || a.UpstreamAnchor
		case a.Kind == X509 && (a.State == Active || a.State == Prepared):
			others = true
		}
	}
	if upstream && !others && !force {
		return nil, fmt.Errorf("nobody could sign X509-SVIDs without this anchor: make a new issuer the default in the upstream, then 'entente authority rotate', and revoke this anchor once an authority below the new one is active; or give --force")
	}
	return planRevokeBelow(all, anchor, ""), nil
}

// planRevokeBelow revokes all authorities below an anchor. named is the one that an operator named.
func planRevokeBelow(all []Authority, anchor, named string) (actions []Action) {
	for _, a := range all {
		if a.Anchor != anchor || (a.State == Revoked && a.AnchorRevoked) {
			continue
		}
		action := Action{Do: Revoke, Kind: a.Kind, ID: a.ID, Why: "an operator revoked its anchor"}
		switch named {
		case "":
		case a.ID:
			action.Why = "an operator revoked it"
		default:
			action.Why = fmt.Sprintf("an operator revoked authority %s, which is below the same anchor", named)
		}
		actions = append(actions, action)
	}
	return actions
}

// PlanActivate says what the activation of a prepared authority does before its time: it takes over from the one of its
// member that signs.
func ActivateAuthority(all []Authority, id string, now time.Time) ([]Action, error) {
	a, err := Find(all, id)
	switch {
	case err != nil:
		return nil, err
	case a.State != Prepared:
		return nil, fmt.Errorf("authority %s is %s; only a prepared one can be activated", id, a.State)
	case now.Before(a.NotBefore):
		return nil, fmt.Errorf("authority %s becomes valid in %v; what it signed before would be refused", id, a.NotBefore.Sub(now).Round(time.Second))
	case !now.Before(a.NotAfter):
		return nil, fmt.Errorf("authority %s has expired", id)
	}
	actions := []Action{{Do: Activate, Kind: a.Kind, ID: a.ID, Why: "an operator activated it"}}
	for _, other := range all {
		if other.Member == a.Member && other.Kind == a.Kind && other.State == Active {
			actions = append(actions, Action{Do: Retire, Kind: other.Kind, ID: other.ID, Why: "its successor is active"})
		}
	}
	return actions, nil
}

func Find(all []Authority, id string) (Authority, error) {
	for _, a := range all {
		if a.ID == id {
			return a, nil
		}
	}
	return Authority{}, fmt.Errorf("%w %s; see 'entente authority list'", ErrNoAuthority, id)
}
