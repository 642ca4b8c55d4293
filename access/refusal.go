package access

import (
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reason is the kind of a refusal. It is the value of a metric label.
type Reason string

// The reasons for refusing a call.
const (
	ReasonAnonymous Reason = "anonymous" // the connection identifies no caller
	ReasonNoRule    Reason = "no_rule"   // the method has no rule
	ReasonMember    Reason = "member"    // a member's identity key does not admit to the API
	ReasonMalformed Reason = "malformed" // the request names something that cannot be parsed
	ReasonReserved  Reason = "reserved"  // only the server issues that ID
	ReasonNoGrant   Reason = "no_grant"  // the caller has no role
	ReasonRole      Reason = "role"      // the caller has other roles
	ReasonDomain    Reason = "domain"    // the caller has the role in other domains
	ReasonPath      Reason = "path"      // the caller has the role for other paths
	ReasonDNS       Reason = "dns"       // the caller has the role without these DNS names
	// ReasonPrivileged is that the ID to be issued has a role that the caller could not grant.
	ReasonPrivileged Reason = "privileged"
	// ReasonOwner is that the service belongs to others, or the caller's grants are for other services.
	ReasonOwner Reason = "owner"
	// ReasonAttested is that the caller's roles do not count, because a hub attests its trust domain.
	ReasonAttested  Reason = "attested"
	ReasonRevoked   Reason = "revoked"    // the grant was revoked while a stream was open
	ReasonUnaudited Reason = "audit_fail" // the audit log cannot be written
	ReasonSlow      Reason = "slow"       // a message was not received, or not read, in time
)

// reasons lists all reasons, for the metric.
var reasons = []Reason{
	ReasonAnonymous, ReasonNoRule, ReasonMember, ReasonMalformed, ReasonReserved, ReasonNoGrant, ReasonRole,
	ReasonDomain, ReasonPath, ReasonDNS, ReasonPrivileged, ReasonOwner, ReasonAttested, ReasonRevoked,
	ReasonUnaudited, ReasonSlow,
}

// Refusal is the error of a call that is not allowed. Message is one sentence that names what would have to change.
type Refusal struct {
	Reason  Reason
	Message string
}

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Error returns the message.
func (r *Refusal) Error() string { return r.Message }

// GRPCStatus implements the interface of package status.
func (r *Refusal) GRPCStatus() *status.Status {
	code := codes.PermissionDenied
	switch r.Reason {
	case ReasonAnonymous:
		code = codes.Unauthenticated
	case ReasonMalformed:
		code = codes.InvalidArgument
	case ReasonUnaudited:
		code = codes.Unavailable
	case ReasonNoRule:
		code = codes.Unimplemented
	case ReasonSlow:
		code = codes.DeadlineExceeded
	case ReasonMember, ReasonReserved, ReasonNoGrant, ReasonRole, ReasonDomain, ReasonPath, ReasonDNS,
		ReasonPrivileged, ReasonOwner, ReasonAttested, ReasonRevoked:
	}
	return status.New(code, r.Message)
}
