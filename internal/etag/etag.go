// Package etag keeps a change from overwriting one that its caller has not seen.
//
// Every object that a client can change is stored with a generation, a number that moves with every change of what
// clients set and with nothing else: not with the object's state, with an alarm or with a restart. Its etag in the API
// is that number in decimal. A call that changes or deletes an object can carry the etag that the caller read, and
// [Check] refuses the call if the object has another one by now. Without an etag the last write wins.
//
// Generations do not repeat, also not when an object is deleted and made again: see raftstore.NextGeneration. A restore
// brings objects back with the generations that they had, so that equal etags still mean equal content.
//
// Invitations and join tokens have no etag: no call changes them, and an ID is never used again.
package etag

import (
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"

	"github.com/ententehq/entente/internal/apierror"
)

// Absent is the etag of an object that does not exist. A call that creates or replaces an object and carries it
// replaces nothing.
const Absent = "0"

// Of returns the etag of an object with a generation. An object that was last changed by a version without generations
// has 0, and the etag 1.
func Of(generation uint64) string { return strconv.FormatUint(max(generation, 1), 10) }

// Check returns an error if an etag is requested and not among the present ones of an object. Without any, the object
// does not exist. The name of the object is for the message, as in "the rule for web".
func Check(requested, name string, present ...string) error {
	if requested == "" {
		return nil
	}
	if n, err := strconv.ParseUint(requested, 10, 64); err != nil || strconv.FormatUint(n, 10) != requested {
		return apierror.New(codes.InvalidArgument, apierror.InvalidArgument,
			"etag %q is none that this API returned: read %s again and use its etag, or leave it out", clip(requested),
			name)
	}
	if len(present) == 0 {
		present = []string{Absent}
	}
	if slices.Contains(present, requested) {
		return nil
	}
	is := present[0]
	metadata := map[string]string{apierror.RequestedEtag: requested, apierror.CurrentEtag: is}
	switch {
	case requested == Absent:
		return apierror.NewWith(codes.Aborted, apierror.EtagMismatch, metadata,
			"%s exists, in generation %s, and etag 0 requires that it does not: read it, and send its etag to "+
				"replace it", name, is)
	case is == Absent:
		return apierror.NewWith(codes.Aborted, apierror.EtagMismatch, metadata,
			"%s was read in generation %s and has been deleted since: leave the etag out to make it again",
			name, requested)
	}
	return apierror.NewWith(codes.Aborted, apierror.EtagMismatch, metadata,
		"%s was changed since it was read: the request is for generation %s, and it is in generation %s; read it "+
			"again, and repeat the change with its new etag", name, requested, is)
}

func clip(s string) string {
	const enough = 32
	if len(s) > enough {
		return s[:enough] + "…"
	}
	return s
}
