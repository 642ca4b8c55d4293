package svid

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// MemberID returns the SPIFFE ID of a member.
func MemberID(home spiffeid.TrustDomain, member string) (spiffeid.ID, error) {
	id, err := spiffeid.FromSegments(home, ReservedSegment, "member", member)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("member %q cannot be named by a SPIFFE ID: %w", member, err)
	}
	return id, nil
}

// EndpointID returns the SPIFFE ID of a domain's bundle endpoint.
func EndpointID(td spiffeid.TrustDomain) (spiffeid.ID, error) {
	return spiffeid.FromSegments(td, ReservedSegment, "bundle-endpoint")
}

// Reserved reports whether only the server itself issues a SPIFFE ID.
func Reserved(id spiffeid.ID) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(id.Path(), "/"), "/")
	return first == ReservedSegment
}
