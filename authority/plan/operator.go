package plan

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrNoAuthority is wrapped if the named authority does not exist.
	ErrNoAuthority = errors.New("there is no authority")
	// ErrNoAnchor is wrapped if the named anchor does not exist.
	ErrNoAnchor = errors.New("there is no anchor")
)

// Refusal is an error for an operator action that the rules refuse. Its text states what the operator can do.
type Refusal struct{ Err error }

// Error implements error.
func (r Refusal) Error() string { return r.Err.Error() }

// Unwrap returns the reason.
func (r Refusal) Unwrap() error { return r.Err }

func refuse(format string, args ...any) error { return Refusal{fmt.Errorf(format, args...)} }

// TaintAuthority returns the actions that taint an authority: it stops signing. One that never signed ends. all are the
// authorities of the domain. Errors are [Refusal]s.
func TaintAuthority(all []Authority, id string) ([]Action, error) {
	a, err := Find(all, id)
	if err != nil {
		return nil, err
	}
	action := Action{Do: Taint, Kind: a.Kind, ID: a.ID, Why: "an operator tainted it"}
	switch a.State {
	case Revoked:
		return nil, refuse("authority %s is revoked, which is more than tainted", id)
	case Tainted:
		return nil, nil
	case Prepared:
		action.Do, action.Why = End, "an operator tainted it, and it never signed"
		return []Action{action}, nil
	}
	return append([]Action{action}, endSpares(all, []Action{action})...), nil
}

// endSpares returns the actions that end the JWT authorities which are published ahead on the members whose authorities
// the actions distrust: a thief of the one key had access to the other. Those that an operator has requested stay.
func endSpares(all []Authority, distrust []Action) (actions []Action) {
	members := map[string]bool{}
	ids := map[string]bool{}
	for _, action := range distrust {
		ids[action.ID] = true
	}
	for _, a := range all {
		members[a.Member] = members[a.Member] || ids[a.ID]
	}
	for _, a := range all {
		if a.spare() && members[a.Member] && !ids[a.ID] {
			actions = append(actions, Action{
				Do: End, Kind: a.Kind, ID: a.ID, Why: "another key of its member is distrusted, and it never signed",
			})
		}
	}
	return actions
}

// RevokeAuthority returns the actions that revoke an authority. An anchor of the member's own is revoked with it, and
// everything below that anchor: a thief of the one key had access to the other. Errors are [Refusal]s.
func RevokeAuthority(all []Authority, id string) ([]Action, error) {
	a, err := Find(all, id)
	if err != nil {
		return nil, err
	}
	if a.Kind == X509 && !a.UpstreamAnchor {
		actions := revokeBelow(all, a.Anchor, id)
		return append(actions, endSpares(all, actions)...), nil
	}
	if a.State == Revoked {
		return nil, nil
	}
	actions := []Action{{Do: Revoke, Kind: a.Kind, ID: a.ID, Why: "an operator revoked it"}}
	return append(actions, endSpares(all, actions)...), nil
}

// RevokeAnchor returns the actions that revoke the authorities below an anchor. Without force it refuses to revoke the
// last anchor of an upstream below which an authority can sign: no member could sign before the upstream has another
// one, and this cluster makes none there. Errors are [Refusal]s.
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
		return nil, refuse(
			"no member could sign X509-SVIDs without this anchor: make a new issuer the default in the upstream, " +
				"then 'entente authority rotate', and revoke this anchor once an authority below the new one is " +
				"active; or give --force",
		)
	}
	actions := revokeBelow(all, anchor, "")
	if upstream {
		return actions, nil // the key of the upstream is distrusted, not those of the members
	}
	return append(actions, endSpares(all, actions)...), nil
}

// revokeBelow returns the actions that revoke all authorities below an anchor. named is the one that an operator named.
func revokeBelow(all []Authority, anchor, named string) (actions []Action) {
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

// ActivateAuthority returns the actions that activate a prepared authority before its time. It replaces the active one
// of its member. Errors are [Refusal]s.
func ActivateAuthority(all []Authority, id string, now time.Time) ([]Action, error) {
	a, err := Find(all, id)
	switch {
	case err != nil:
		return nil, err
	case a.State != Prepared:
		return nil, refuse("authority %s is %s; only a prepared one can be activated", id, a.State)
	case now.Before(a.NotBefore):
		return nil, refuse("authority %s becomes valid in %v; what it signed before would be refused",
			id, a.NotBefore.Sub(now).Round(time.Second))
	case !now.Before(a.NotAfter):
		return nil, refuse("authority %s has expired", id)
	}
	actions := []Action{{Do: Activate, Kind: a.Kind, ID: a.ID, Why: "an operator activated it"}}
	for _, other := range all {
		if other.Member == a.Member && other.Kind == a.Kind && other.State == Active {
			actions = append(actions,
				Action{Do: Retire, Kind: other.Kind, ID: other.ID, Why: "its successor is active"})
		}
	}
	return actions, nil
}

// Find returns the authority of that ID, or a [Refusal] that wraps [ErrNoAuthority].
func Find(all []Authority, id string) (Authority, error) {
	for _, a := range all {
		if a.ID == id {
			return a, nil
		}
	}
	return Authority{}, refuse("%w %s; see 'entente authority list'", ErrNoAuthority, id)
}
