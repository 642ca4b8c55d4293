// Package apierror gives the errors of the API a machine-readable reason.
//
// Every error that leaves the API carries a google.rpc.ErrorInfo with the domain [Domain] and one of the reasons below.
// An error about one field of the request also carries a google.rpc.BadRequest that names the field. Clients branch on
// the reason; the message of the status is for people and changes between versions.
//
// [New] makes an error with a given reason. Most code returns a plain gRPC status: the interceptors [Unary] and
// [Stream], which stand before every API service, add the reason that follows from the status code. An explicit reason
// is needed only where the code does not imply one, such as [NoLeader] for Unavailable. docs/operating/errors.md lists
// the reasons for clients in other languages.
package apierror

import (
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Domain is the domain of all reasons in this package.
const Domain = "entente"

// Reasons of errors.
const (
	// NoLeader means that no leader can be reached. Nothing was written; stale reads work.
	NoLeader = "NO_LEADER"
	// Starting means that the member was started and does not serve yet. Whether a resource exists is not known there.
	Starting = "STARTING"
	// UnknownOutcome means that the write may or may not have been made.
	UnknownOutcome = "UNKNOWN_OUTCOME"
	// Behind means that the member has not reached the requested revision.
	Behind = "BEHIND"
	// WatchRestart means that a watch missed changes and must start again.
	WatchRestart = "WATCH_RESTART"
	// Unavailable means that the member cannot serve the call at the moment.
	Unavailable = "UNAVAILABLE"
	// Denied means that the caller is known and not allowed to make the call.
	Denied = "PERMISSION_DENIED"
	// Unauthenticated means that the caller is not known.
	Unauthenticated = "UNAUTHENTICATED"
	// NotFound means that the named resource does not exist or is not visible to the caller.
	NotFound = "NOT_FOUND"
	// AlreadyExists means that a resource of that name exists.
	AlreadyExists = "ALREADY_EXISTS"
	// Conflict means that a concurrent change prevented this one.
	Conflict = "CONFLICT"
	// EtagMismatch means that the object was changed since the caller read it. The metadata has both etags.
	EtagMismatch = "ETAG_MISMATCH"
	// DeletionProtected means that the object is not deleted while its deletion_protection is set.
	DeletionProtected = "DELETION_PROTECTED"
	// FailedPrecondition means that the state of the system does not allow the call.
	FailedPrecondition = "FAILED_PRECONDITION"
	// Abandoned means that the cluster was recovered without the calling member, whose data folder belongs to a history
	// that has ended.
	Abandoned = "ABANDONED"
	// Removed means that the calling member was removed from the cluster.
	Removed = "REMOVED"
	// RequestReused means that the request id was used for another request.
	RequestReused = "REQUEST_REUSED"
	// InvalidArgument means that the request is malformed, in any state of the system.
	InvalidArgument = "INVALID_ARGUMENT"
	// Exhausted means that a limit or a rate is exceeded.
	Exhausted = "EXHAUSTED"
	// Unimplemented means that the member does not serve the method.
	Unimplemented = "UNIMPLEMENTED"
	// Internal means a defect of the server or of its machine.
	Internal = "INTERNAL"
)

// RequestedEtag is the key of the request's etag in the metadata of EtagMismatch.
const RequestedEtag = "etag"

// CurrentEtag is the key of the object's etag in the metadata of EtagMismatch. It is "0" if the object does not exist.
const CurrentEtag = "current_etag"

// reasonOf maps status codes to the reasons that they imply. The other codes describe the call, not the system.
var reasonOf = map[codes.Code]string{
	codes.Unavailable:        Unavailable,
	codes.PermissionDenied:   Denied,
	codes.Unauthenticated:    Unauthenticated,
	codes.NotFound:           NotFound,
	codes.AlreadyExists:      AlreadyExists,
	codes.Aborted:            Conflict,
	codes.FailedPrecondition: FailedPrecondition,
	codes.OutOfRange:         InvalidArgument,
	codes.InvalidArgument:    InvalidArgument,
	codes.ResourceExhausted:  Exhausted,
	codes.Unimplemented:      Unimplemented,
	codes.Internal:           Internal,
	codes.DataLoss:           Internal,
}

// New returns an error with a gRPC status and a reason.
func New(code codes.Code, reason, format string, args ...any) error {
	return NewWith(code, reason, nil, format, args...)
}

// NewWith returns an error as New does, with metadata for programs.
func NewWith(code codes.Code, reason string, metadata map[string]string, format string, args ...any) error {
	info := &errdetails.ErrorInfo{Domain: Domain, Reason: reason, Metadata: metadata}
	return withDetails(status.New(code, fmt.Sprintf(format, args...)), info).Err()
}

// Reason returns the reason that a status carries, or else the one that its code implies. It returns "" for a status of
// which neither is known.
func Reason(s *status.Status) string {
	if info := infoOf(s); info != nil {
		return info.GetReason()
	}
	return reasonOf[s.Code()]
}

// Metadata returns the metadata that a status carries for programs, or nil.
func Metadata(s *status.Status) map[string]string { return infoOf(s).GetMetadata() }

func infoOf(s *status.Status) *errdetails.ErrorInfo {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return info
		}
	}
	return nil
}
