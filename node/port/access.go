package port

import "github.com/ententehq/entente/access"

// AccessCaller implements [access.Identified]. A member is identified by its identity key, and a client by its
// X509-SVID. A joiner is anonymous.
func (a AuthInfo) AccessCaller() access.Caller {
	switch {
	case a.Caller.Protocol == Member:
		return access.MemberCaller(a.Caller.MemberID)
	case !a.Caller.SPIFFEID.IsZero():
		return access.SVIDCaller(a.Caller.SPIFFEID)
	}
	return access.Caller{}
}
