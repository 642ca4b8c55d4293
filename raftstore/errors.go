package raftstore

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/internal/apierror"
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
	// ErrNotMember means that the Raft configuration has no such server.
	ErrNotMember = errors.New("no such member in the cluster")
)

// StatusError turns an error of the store into one with a gRPC status. An error that has a status already is returned
// unchanged; one that is not the store's becomes Internal.
func StatusError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	code := statusCode(err)
	if reason := statusReason(err); reason != "" {
		return apierror.New(code, reason, "%v", err)
	}
	return status.Error(code, err.Error())
}

// statusReason returns the reason of an error where its status code does not imply it.
func statusReason(err error) string {
	switch {
	case errors.Is(err, ErrNoLeader), errors.Is(err, ErrNotLeader):
		return apierror.NoLeader
	case errors.Is(err, ErrBehind):
		return apierror.Behind
	case errors.Is(err, ErrUnknownOutcome):
		return apierror.UnknownOutcome
	case errors.Is(err, ErrWatchRestart):
		return apierror.WatchRestart
	}
	return ""
}

func statusCode(err error) codes.Code {
	var withStatus interface{ GRPCStatus() *status.Status }
	switch {
	case errors.As(err, &withStatus):
		return withStatus.GRPCStatus().Code()
	case errors.Is(err, ErrNoLeader),
		errors.Is(err, ErrClosed),
		errors.Is(err, ErrBehind),
		errors.Is(err, ErrNotLeader):
		return codes.Unavailable
	case errors.Is(err, ErrUnknownOutcome):
		return codes.Unknown
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
