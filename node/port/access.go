package port

import "github.com/ententehq/entente/access"

// AccessCaller implements [access.Identified]. A member is identified by its identity key, and a client by its
// X509-SVID. A joiner is anonymous.
func (a AuthInfo) AccessCaller() access.Caller { return a.Caller.access() }

func (c Caller) access() access.Caller {
	switch {
	case c.Protocol == Member:
		return access.MemberCaller(c.MemberID)
	case !c.SPIFFEID.IsZero():
		return access.SVIDCaller(c.SPIFFEID).WithKey(c.Identity)
	}
	return access.Caller{}
}
