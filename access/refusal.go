package access

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reason names a refusal, as the label of a metric does.
type Reason string

// Why a call is refused.
const (
	ReasonAnonymous Reason = "anonymous"  // the connection proves nobody
	ReasonNoRule    Reason = "no_rule"    // the method cannot be called here
	ReasonMember    Reason = "member"     // a member's identity key opens other doors
	ReasonMalformed Reason = "malformed"  // what the request names cannot be read
	ReasonReserved  Reason = "reserved"   // the server alone issues that ID
	ReasonNoGrant   Reason = "no_grant"   // the caller has no role at all
	ReasonRole      Reason = "role"       // the caller has other roles
	ReasonDomain    Reason = "domain"     // the caller has the role elsewhere
	ReasonPath      Reason = "path"       // the caller has the role for other paths
	ReasonDNS       Reason = "dns"        // the caller has the role without these DNS names
	ReasonRevoked   Reason = "revoked"    // the grant went away while a stream was open
	ReasonUnaudited Reason = "audit_fail" // the audit log cannot be written
)

// reasons are all of them, for the metric.
var reasons = []Reason{
	ReasonAnonymous, ReasonNoRule, ReasonMember, ReasonMalformed, ReasonReserved, ReasonNoGrant, ReasonRole,
	ReasonDomain, ReasonPath, ReasonDNS, ReasonRevoked, ReasonUnaudited,
}

// Refusal is why a caller may not do what it asked for, in one sentence that says what would have to change.
type Refusal struct {
	Reason  Reason
	Message string
}

// Error is the sentence.
func (r *Refusal) Error() string { return r.Message }

// GRPCStatus makes the refusal the status of a call.
func (r *Refusal) GRPCStatus() *status.Status {
	code := codes.PermissionDenied
	switch r.Reason {
	case ReasonAnonymous:
		code = codes.Unauthenticated
	case ReasonMalformed:
		code = codes.InvalidArgument
	case ReasonUnaudited:
		code = codes.Unavailable
	case ReasonNoRule, ReasonMember, ReasonReserved, ReasonNoGrant, ReasonRole, ReasonDomain, ReasonPath, ReasonDNS, ReasonRevoked:
	}
	return status.New(code, r.Message)
}
