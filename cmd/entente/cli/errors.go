package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/client"
)

// usageError is an invalid command line.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

// Usagef returns an error for an invalid command line. The exit status is 2, and the message points to the help.
func Usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// Silent ends the command without a message, after the command has printed why.
type Silent struct {
	Err error
	// Status is the exit status. If 0, it is the one for Err.
	Status int
}

func (s Silent) Error() string { return s.Err.Error() }

// Unwrap returns the error.
func (s Silent) Unwrap() error { return s.Err }

// explain prints an error with what to do about it, and returns the exit status.
func (env *Env) explain(cmd *cobra.Command, err error) int {
	var silent Silent
	if err == nil || errors.As(err, &silent) {
		return exitStatus(err)
	}
	var usage *usageError
	message := nameFlags(cmd, Sentence(err))
	if errors.As(err, &usage) {
		message = fmt.Sprintf("%s; '%s --help' shows the usage", Printable(usage.message), cmd.CommandPath())
	}
	if env.Output == OutputJSON || env.Output == OutputYAML {
		structured := *env
		structured.Stdout = env.Stderr
		if structured.Print(newErrorDocument(err, message), nil) == nil {
			return exitStatus(err)
		}
	}
	for line := range strings.Lines(message) {
		fmt.Fprintf(env.Stderr, "entente: %s\n", Printable(strings.TrimSuffix(line, "\n")))
	}
	return exitStatus(err)
}

// Sentence returns an error as a sentence for a person.
func Sentence(err error) string {
	var s interface{ GRPCStatus() *status.Status }
	switch {
	case errors.Is(err, client.ErrBundleEndpoint):
		return "--address is that of a bundle endpoint, which does not serve the API: " +
			"give the cluster port, 7440 unless member.listen has another"
	case errors.Is(err, client.ErrUnknownOutcome) && errors.As(err, &s):
		return unknownOutcome(s.GRPCStatus())
	case errors.As(err, &s):
		return statusSentence(s.GRPCStatus())
	case errors.Is(err, context.Canceled):
		return "interrupted"
	}
	return err.Error()
}

// unknownOutcome returns what to do after a change that may or may not have been made.
func unknownOutcome(s *status.Status) string {
	cause := ""
	switch s.Code() {
	case codes.Canceled:
		cause = "interrupted: "
	case codes.DeadlineExceeded:
		cause = "no response in time: "
	case codes.Unavailable:
		cause = "the connection to the member broke: "
	default:
	}
	return cause + "whether the change was made is not known; show or list what it changes before trying again"
}

// fieldName matches names of fields in a sentence: several words, or one word at the beginning.
var fieldName = regexp.MustCompile(`^(?:ttl|audience|weight)\b|\b[a-z0-9]+(?:_[a-z0-9]+)+\b`)

// flagOf maps fields to flags of another name.
var flagOf = map[string]string{
	"path_prefix": "path", "dns_names": "dns", "trust_domain": "domain", "bootstrap_bundle": "bootstrap",
}

// nameFlags replaces the names of fields in a sentence of a member by the flags of the command.
func nameFlags(cmd *cobra.Command, sentence string) string {
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

// dialError matches the message of gRPC for a failed connection. The error of the operating system or of TLS is at its
// end.
var dialError = regexp.MustCompile(
	`(?s)^.*(?:transport: Error while dialing: dial \S+ (\S+): |transport: authentication handshake failed: )(.*?)"?$`)

// statusSentence returns a gRPC status as a sentence. Messages of members are sentences already; those of gRPC are not.
func statusSentence(s *status.Status) string {
	if m := dialError.FindStringSubmatch(s.Message()); m != nil {
		where, why := m[1], strings.TrimPrefix(m[2], "connect: ")
		if where == "" {
			return fmt.Sprintf(
				"the member and this command do not trust each other: %s; check --cert, --key and --bundle", why,
			)
		}
		return fmt.Sprintf(
			"cannot reach %s: %s; check that the member runs and that --address or --socket names it", where, why,
		)
	}
	switch s.Code() {
	case codes.Canceled:
		return "interrupted"
	case codes.DeadlineExceeded:
		return "no response in time: try again, wait longer with --timeout, or use another member"
	case codes.Unimplemented:
		return "the member does not know this command: it runs another version; 'entente cluster members' shows which"
	case codes.Unavailable:
		for _, prefix := range []string{"error reading from server", "connection error", "closing transport"} {
			if strings.HasPrefix(s.Message(), prefix) {
				return "the member closed the connection: it may be stopping, or no longer trust the caller; " +
					"try again, or use another member"
			}
		}
	default:
	}
	return s.Message()
}
