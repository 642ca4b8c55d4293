package cli

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/internal/apierror"
)

func TestSentence(t *testing.T) {
	unavailable := func(message string) error { return status.Error(codes.Unavailable, message) }
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"the message of the server": {
			status.Error(codes.NotFound, "there is no x: make one"),
			"there is no x: make one",
		},
		"no response": {
			status.FromContextError(context.DeadlineExceeded).Err(),
			"no response in time: try again, wait longer with --timeout, or use another member",
		},
		"interrupted": {status.FromContextError(context.Canceled).Err(), "interrupted"},
		"nothing listens": {
			unavailable(`connection error: desc = "transport: Error while dialing: ` +
				`dial tcp 127.0.0.1:1: connect: connection refused"`),
			"cannot reach 127.0.0.1:1: connection refused; check that the member runs and that --address or " +
				"--socket names it",
		},
		"a dead socket": {
			unavailable(`last connection error: connection error: desc = "transport: Error while dialing: ` +
				`dial unix /d/admin.sock: connect: connection refused"`),
			"cannot reach /d/admin.sock: connection refused; " +
				"check that the member runs and that --address or --socket names it",
		},
		"no such host": {
			unavailable("name resolver error: produced zero addresses"), "name resolver error: produced zero addresses",
		},
		"no trust": {
			unavailable(`connection error: desc = "transport: authentication handshake failed: ` +
				`tls: failed to verify certificate"`),
			"the member and this command do not trust each other: tls: failed to verify certificate; " +
				"check --cert, --key and --bundle",
		},
		"a lost connection": {
			unavailable("error reading from server: EOF"),
			"the member closed the connection: it may be stopping, or no longer trust the caller; " +
				"try again, or use another member",
		},
		"an unknown outcome": {
			apiError{apierror.New(codes.Unknown, apierror.UnknownOutcome, "whether the write was made is not known")},
			"whether the change was made is not known; show or list what it changes before trying again",
		},
		"an unknown outcome after the deadline": {
			apiError{status.FromContextError(context.DeadlineExceeded).Err()},
			"no response in time: whether the change was made is not known; show or list what it changes before " +
				"trying again",
		},
		"an interrupted change": {
			apiError{status.FromContextError(context.Canceled).Err()},
			"interrupted: whether the change was made is not known; show or list what it changes before trying again",
		},
		"a connection that broke during a change": {
			apiError{unavailable("error reading from server: EOF")},
			"the connection to the member broke: whether the change was made is not known; show or list what it " +
				"changes before trying again",
		},
		"another version": {
			status.Error(codes.Unimplemented, "unknown method X"),
			"the member does not know this command: it runs another version; 'entente cluster members' shows which",
		},
		"no status":          {errors.New("a thing: failed"), "a thing: failed"},
		"an interrupted run": {context.Canceled, "interrupted"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, Sentence(test.err)) })
	}
}

func TestDurations(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"just now": 0, "now": -time.Millisecond, "42s ago": 42 * time.Second, "in 42s": -42 * time.Second,
		"5m ago":    5*time.Minute + time.Second,
		"3h20m ago": 3*time.Hour + 20*time.Minute, "3h ago": 3 * time.Hour, "in 2d": -49 * time.Hour,
	} {
		require.Equal(t, want, Ago(d))
	}
	for want, d := range map[string]time.Duration{
		"1h": time.Hour, "1m30s": 90 * time.Second, "5m": 5 * time.Minute,
		"10s": 10 * time.Second, "24h": 24 * time.Hour,
	} {
		require.Equal(t, want, Duration(durationpb.New(d)))
	}
}

func TestPrintable(t *testing.T) {
	require.Equal(t, "spiffe://eu/é", Printable("spiffe://eu/é"))
	require.Equal(t, `a\x1b[2J\nb\u202e`, Printable("a\x1b[2J\nb\u202e"))
}

// apiError is an error that the client returns for a change of unknown outcome.
type apiError struct{ error }

func (apiError) Is(target error) bool { return target == client.ErrUnknownOutcome }

func (e apiError) GRPCStatus() *status.Status { return status.Convert(e.error) }
