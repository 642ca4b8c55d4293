package plan

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
