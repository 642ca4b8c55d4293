package cli

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/client"
)

func TestExitStatus(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want int
	}{
		"no error":                      {nil, 0},
		"another error":                 {errors.New("disk full"), 1},
		"interrupted":                   {context.Canceled, 1},
		"an invalid command line":       {Usagef("ID is missing"), 2},
		"an invalid request":            {client.ErrInvalidArgument, 2},
		"not found by the member":       {client.ErrNotFound, 3},
		"not found by the command":      {NotFoundf("there is no %s", "x"), 3},
		"exists":                        {client.ErrAlreadyExists, 4},
		"exists with other settings":    {exists{"it differs"}, 4},
		"denied":                        {client.ErrDenied, 5},
		"no identity":                   {client.ErrUnauthenticated, 5},
		"no leader, and so unavailable": {errors.Join(client.ErrUnavailable, client.ErrNoLeader), 6},
		"unavailable":                   {client.ErrUnavailable, 7},
		"a conflict":                    {client.ErrConflict, 7},
		"a limit":                       {client.ErrExhausted, 7},
		"no response in time":           {context.DeadlineExceeded, 7},
		"an unknown outcome, which is also unavailable": {
			errors.Join(client.ErrUnavailable, client.ErrUnknownOutcome), 8,
		},
		"the state does not allow it": {client.ErrFailedPrecondition, 9},
		"a wrapped error":             {fmt.Errorf("read: %w", client.ErrNotFound), 3},
		"printed by the command":      {Silent{Err: errors.New("failed")}, 1},
		"printed, and of a kind":      {Silent{Err: client.ErrNotFound}, 3},
		"printed, with a status":      {Silent{Err: errors.New("degraded"), Status: 10}, 10},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, exitStatus(test.err)) })
	}
}

func TestOutputOf(t *testing.T) {
	for want, args := range map[string][]string{
		"table": {"domain", "list"},
		"json":  {"domain", "list", "--nonsense", "-o", "json"},
		"yaml":  {"--output=yaml", "domain", "create", "--refresh-hint", "x"},
		"xml":   {"domain", "list", "-oxml"},
	} {
		require.Equal(t, want, outputOf(args))
	}
}
