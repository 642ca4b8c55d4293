package port

import "github.com/ententehq/entente/access"

// AccessCaller is the caller as access knows it: a member by its identity key, anybody else by the X509-SVID. A joiner
// is neither, and stays anonymous there.
func (a AuthInfo) AccessCaller() access.Caller {
	switch {
	case a.Caller.Protocol == Member:
		return access.MemberCaller(a.Caller.MemberID)
	case !a.Caller.SPIFFEID.IsZero():
		return access.SVIDCaller(a.Caller.SPIFFEID)
	}
	return access.Caller{}
}
