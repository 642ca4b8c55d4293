package raftstore

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore/internal/disk"
	"github.com/ententehq/entente/raftstore/internal/history"
	"github.com/ententehq/entente/raftstore/snapshot"
)

// The errors that callers of a store distinguish.
var (
	// ErrNoLeader means that no member leads a majority, or this one does not reach it. Nothing was written. Stale
	// reads work.
	ErrNoLeader = errors.New("the cluster has no leader that this member can reach: " +
		"check that a majority of members runs and can reach each other")
	// ErrUnknownOutcome means that the write may or may not have been made. Read before trying again.
	ErrUnknownOutcome = errors.New("whether the write was made is not known: read the resource before trying again")
	// ErrTooLarge means that the transaction does not fit into one command. Write less, or
	// in several transactions.
	ErrTooLarge = errors.New("too large for one transaction")
	// ErrBusy means that more writes wait than the leader accepts. Nothing was written.
	ErrBusy = errors.New("too many writes wait for the leader: try again later")
	// ErrClosed means that the store was closed, or stopped by a fatal error.
	ErrClosed = errors.New("the store is closed")
	// ErrBehind means that this member has not reached the requested revision.
	ErrBehind = errors.New("this member has not reached that revision: try again, or use another member")
	// ErrWatchRestart means that a watch cannot deliver every change any more. Read the state again, and watch from its
	// revision.
	ErrWatchRestart = history.ErrMissed
	// ErrNotLeader means that only the leader can do this.
	ErrNotLeader = errors.New("this member does not lead the cluster: use the leader")
	// ErrDamaged means that a file of this member does not contain what was written to it. The member can be rebuilt
	// from the others.
	ErrDamaged = disk.ErrDamaged
	// ErrAbandoned means that the cluster was recovered without this member.
	ErrAbandoned = disk.ErrAbandoned
	// ErrRemoved means that this member was removed from the cluster.
	ErrRemoved = disk.ErrRemoved
	// ErrNotMember means that the Raft configuration has no such server.
	ErrNotMember = errors.New("no such member in the cluster")
)

// StartingError means that this member was started and does not serve yet: what it has may be older than what it served
// before. Nothing follows from it about any resource.
type StartingError struct {
	// Revision is how far the member is.
	Revision Revision
	// Of is the revision that it must reach. 0: that is not known before it has reached a leader.
	Of Revision
}

// Error implements error.
func (e *StartingError) Error() string {
	if e.Of == 0 {
		return fmt.Sprintf("starting: waiting for a leader, at revision %d", e.Revision)
	}
	return fmt.Sprintf("starting: replaying the log, revision %d of %d", e.Revision, e.Of)
}

// StatusError turns an error of the store into one with a gRPC status. An error that has a status already is returned
// unchanged; one that is not the store's becomes Internal. The store's own errors come first, because they wrap what
// caused them: the status of another member, or the end of the caller's context.
//
// [ErrUnknownOutcome] has the code Unknown and a reason of its own. Clients and proxies repeat a call by themselves
// after Unavailable, Aborted, ResourceExhausted, DeadlineExceeded or Internal; none does after Unknown, and no other
// error of the API has this code. DataLoss would be as safe, and would raise the wrong alarm.
func StatusError(err error) error {
	if err == nil {
		return nil
	}
	if statusReason(err) == "" {
		if _, ok := status.FromError(err); ok {
			return err
		}
	}
	code := statusCode(err)
	if reason := statusReason(err); reason != "" {
		return apierror.New(code, reason, "%v", err)
	}
	return status.Error(code, err.Error())
}

// statusReason returns the reason of an error where its status code does not imply it.
func statusReason(err error) string {
	var starting *StartingError
	switch {
	case errors.Is(err, ErrUnknownOutcome): // first: it wraps why the outcome is not known
		return apierror.UnknownOutcome
	case errors.As(err, &starting):
		return apierror.Starting
	case errors.Is(err, ErrNoLeader), errors.Is(err, ErrNotLeader):
		return apierror.NoLeader
	case errors.Is(err, ErrBehind):
		return apierror.Behind
	case errors.Is(err, ErrWatchRestart):
		return apierror.WatchRestart
	}
	return ""
}

func statusCode(err error) codes.Code {
	var withStatus interface{ GRPCStatus() *status.Status }
	var starting *StartingError
	switch {
	case errors.Is(err, ErrUnknownOutcome):
		return codes.Unknown
	case errors.As(err, &starting),
		errors.Is(err, ErrNoLeader),
		errors.Is(err, ErrClosed),
		errors.Is(err, ErrBehind),
		errors.Is(err, ErrNotLeader):
		return codes.Unavailable
	case errors.As(err, &withStatus):
		return withStatus.GRPCStatus().Code()
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrBusy):
		return codes.ResourceExhausted
	case errors.Is(err, ErrWatchRestart):
		return codes.OutOfRange
	case errors.Is(err, ErrNotMember):
		return codes.NotFound
	case errors.Is(err, snapshot.ErrNotSnapshot),
		errors.Is(err, snapshot.ErrVersion),
		errors.Is(err, snapshot.ErrDamaged):
		return codes.InvalidArgument
	case errors.Is(err, ErrOtherCluster):
		return codes.FailedPrecondition
	case errors.Is(err, ErrRestoreSuperseded):
		return codes.Aborted
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	}
	return codes.Internal
}
