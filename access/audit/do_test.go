package audit_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access/audit"
)

// lines is a recorder that keeps what it records. It fails from line fails on, if that is not zero.
type lines struct {
	fails int
	tried int
	kept  []string
}

var errFull = errors.New("no space left on device")

func (l *lines) Record(e audit.Event) error {
	if l.tried++; l.fails > 0 && l.tried >= l.fails {
		return errFull
	}
	l.kept = append(l.kept, fmt.Sprintf("%s %s: %s at %d: %s", e.Action, e.Object, e.Result, e.Revision, e.Detail))
	return nil
}

const (
	notDone = "accept bundle us.test: not done, because it cannot be audited: no space left on device; make room on " +
		"the member's disk, or use another member"
	withheld = "accept bundle us.test: the result is withheld, because it cannot be audited: no space left on " +
		"device; make room on the member's disk, or use another member"
)

func TestDo(t *testing.T) {
	refused := errors.New("superseded by another fetch")
	succeed := func(e *audit.Event) error { e.Revision = 7; return nil }
	fail := func(*audit.Event) error { return refused }
	for name, test := range map[string]struct {
		fails    int
		withhold bool
		action   func(*audit.Event) error
		err      string
		kept     []string
	}{
		"done": {
			action: succeed,
			kept:   []string{"accept bundle us.test: begun at 0: 2 keys", "accept bundle us.test: done at 7: 2 keys"},
		},
		"failed": {
			action: fail, err: "superseded by another fetch",
			kept: []string{"accept bundle us.test: begun at 0: 2 keys",
				"accept bundle us.test: failed at 0: superseded by another fetch"},
		},
		"result and detail of the action": {
			action: func(e *audit.Event) error { e.Result, e.Detail = "superseded", "by generation 3"; return refused },
			err:    "superseded by another fetch",
			kept: []string{"accept bundle us.test: begun at 0: 2 keys",
				"accept bundle us.test: superseded at 0: by generation 3"},
		},
		"no first line": {
			fails: 1, err: notDone,
			action: func(*audit.Event) error { t.Error("the action ran"); return nil },
		},
		"no second line": {fails: 2, action: succeed, kept: []string{"accept bundle us.test: begun at 0: 2 keys"}},
		"no second line after a failure": {
			fails: 2, action: fail, withhold: true, err: "superseded by another fetch",
			kept: []string{"accept bundle us.test: begun at 0: 2 keys"},
		},
		"no second line for a result that can be withheld": {
			fails: 2, withhold: true, action: succeed, err: withheld,
			kept: []string{"accept bundle us.test: begun at 0: 2 keys"},
		},
		"a result that can be withheld": {
			withhold: true, action: succeed,
			kept: []string{"accept bundle us.test: begun at 0: 2 keys", "accept bundle us.test: done at 7: 2 keys"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := &lines{fails: test.fails}
			event := audit.Event{Caller: "federation", Action: "accept bundle", Object: "us.test", Detail: "2 keys",
				Withhold: test.withhold}
			err := audit.Do(l, event, test.action)
			require.Equal(t, test.kept, l.kept)
			if test.err == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.err)
			if test.err == notDone || test.err == withheld {
				require.ErrorIs(t, err, audit.ErrUnaudited)
				require.ErrorIs(t, err, errFull)
				require.Equal(t, codes.Unavailable, status.Code(err))
			}
		})
	}
}

func TestDoAll(t *testing.T) {
	events := []audit.Event{{Action: "end", Object: "lease a"}, {Action: "end", Object: "lease b"}}
	l := &lines{}
	require.NoError(t, audit.DoAll(l, events, func(lines []audit.Event) error {
		lines[0].Revision, lines[1].Revision, lines[1].Result = 4, 4, "renewed"
		return nil
	}))
	require.Equal(t, []string{
		"end lease a: begun at 0: ", "end lease b: begun at 0: ", "end lease a: done at 4: ", "end lease b: renewed " +
			"at 4: ",
	}, l.kept)

	l = &lines{fails: 2}
	err := audit.DoAll(l, events, func([]audit.Event) error { t.Error("the action ran"); return nil })
	require.EqualError(t, err, "end lease b: not done, because it cannot be audited: no space left on device; make "+
		"room on the member's disk, or use another member")
	require.Equal(t, []string{"end lease a: begun at 0: "}, l.kept, "the disk that is full takes no other line either")
}
