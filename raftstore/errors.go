package raftstore

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/internal/apierror"
)

// What callers of a store tell apart.
var (
	// ErrNoLeader: no member leads a majority, or this one does not reach it. Nothing was written. Stale reads work on.
	ErrNoLeader = errors.New("the cluster has no leader that this member can reach: check that a majority of members runs and can talk to each other")
	// ErrUnknownOutcome: the write may or may not have been made. Read before doing it again.
	ErrUnknownOutcome = errors.New("whether the write was made is not known: read the resource before trying again")
	// ErrTooLarge: the transaction does not fit into one command. Write less, or use a [Set].
	ErrTooLarge = errors.New("too large for one transaction")
	// ErrBusy: more writes wait than the leader holds. Nothing was written.
	ErrBusy = errors.New("too many writes wait for the leader: try again later")
	// ErrClosed: the store was closed, or stopped by a fatal error.
	ErrClosed = errors.New("the store is closed")
	// ErrBehind: this member has not reached the revision that was asked for.
	ErrBehind = errors.New("this member has not reached that revision: try again, or ask another member")
	// ErrWatchRestart: a watch cannot deliver every change any more. Read the state anew, and watch from its revision.
	ErrWatchRestart = errors.New("the watch has missed changes: read anew and watch from there")
	// ErrNotLeader: only the leader can do this.
	ErrNotLeader = errors.New("this member does not lead the cluster: ask the leader")
	// ErrNotMember: there is no such server in the Raft configuration.
	ErrNotMember = errors.New("no such member in the cluster")
)

// StatusError turns an error of the store into one with a gRPC status, and leaves alone one that has a status already. An
// error that the store does not know is Internal.
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
	case errors.Is(err, ErrNoLeader), errors.Is(err, ErrClosed), errors.Is(err, ErrBehind), errors.Is(err, ErrNotLeader):
		return codes.Unavailable
	case errors.Is(err, ErrUnknownOutcome):
		return codes.Unknown
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrBusy):
		return codes.ResourceExhausted
	case errors.Is(err, ErrWatchRestart):
		return codes.OutOfRange
	case errors.Is(err, ErrNotMember):
		return codes.NotFound
	case errors.Is(err, ErrNotSnapshot), errors.Is(err, ErrSnapshotVersion), errors.Is(err, ErrSnapshotDamaged):
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

// fatalError says why a member had to stop.
func fatalError(format string, args ...any) error {
	return fmt.Errorf("this member stops: "+format, args...)
}
