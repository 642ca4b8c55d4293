package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a command line that was not understood.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// silentError ends the command with a status, when all has been said.
type silentError struct{ error }

// explain says on standard error what went wrong and what to do, and returns the exit status.
func (a *app) explain(cmd *cobra.Command, err error) int {
	var usage *usageError
	var silent silentError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &silent):
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintf(a.stderr, "entente: %s; '%s --help' shows how it is used\n", printable(usage.message), cmd.CommandPath())
		return exitUsage
	}
	for line := range strings.Lines(inFlags(cmd, sentence(err))) {
		fmt.Fprintf(a.stderr, "entente: %s\n", printable(strings.TrimSuffix(line, "\n")))
	}
	return exitFailed
}

// sentence is an error as a person should read it.
func sentence(err error) string {
	var s interface{ GRPCStatus() *status.Status }
	switch {
	case errors.As(err, &s):
		return fromStatus(s.GRPCStatus())
	case errors.Is(err, context.Canceled):
		return "interrupted"
	}
	return err.Error()
}

// fieldName is a name of the API in a sentence: several words, or one that the sentence is about.
var fieldName = regexp.MustCompile(`^(?:ttl|audience|weight)\b|\b[a-z0-9]+(?:_[a-z0-9]+)+\b`)

// flagOf is the flag of a field, where it has another name.
var flagOf = map[string]string{"path_prefix": "path", "dns_names": "dns", "trust_domain": "domain", "bootstrap_bundle": "bootstrap"}

// inFlags says it with the command's flags, where a member says it with the names of fields.
func inFlags(cmd *cobra.Command, sentence string) string {
	return fieldName.ReplaceAllStringFunc(sentence, func(field string) string {
		flag, ok := flagOf[field]
		if !ok {
			flag = strings.ReplaceAll(field, "_", "-")
		}
		switch {
		case cmd.Flags().Lookup(flag) != nil:
			return "--" + flag
		case field == "trust_domain" && strings.Contains(cmd.Use, "DOMAIN"):
			return "DOMAIN"
		}
		return field
	})
}

// dialing is how gRPC words that it did not come through; what the operating system or TLS said is at its end.
var dialing = regexp.MustCompile(`(?s)^.*(?:transport: Error while dialing: dial \S+ (\S+): |transport: authentication handshake failed: )(.*?)"?$`)

// fromStatus words a gRPC status. What the server says is one clear sentence already; what gRPC itself says is not.
func fromStatus(s *status.Status) string {
	if m := dialing.FindStringSubmatch(s.Message()); m != nil {
		where, why := m[1], strings.TrimPrefix(m[2], "connect: ")
		if where == "" && strings.Contains(why, isEndpoint) {
			return isEndpoint
		}
		if where == "" {
			return fmt.Sprintf("the member and this command do not trust each other: %s; check --cert, --key and --bundle", why)
		}
		return fmt.Sprintf("cannot reach %s: %s; check that the member runs and that --address or --socket names it", where, why)
	}
	switch s.Code() {
	case codes.Canceled:
		return "interrupted"
	case codes.DeadlineExceeded:
		return "there was no answer in time: try again, wait longer with --timeout, or ask another member"
	case codes.Unimplemented:
		return "the member does not know this command: it runs another version than this one; 'entente cluster members' shows which"
	case codes.Unavailable:
		if strings.HasPrefix(s.Message(), "error reading from server") || strings.HasPrefix(s.Message(), "connection error") || strings.HasPrefix(s.Message(), "closing transport") {
			return "the member closed the connection: it may be stopping, or not trust the caller any more; try again, or ask another member"
		}
	default:
	}
	return s.Message()
}
