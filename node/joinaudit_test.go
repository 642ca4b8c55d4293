package node

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// auditLines is an audit log with room for a number of lines.
type auditLines struct {
	room int
	kept []string
}

func (l *auditLines) Record(e audit.Event) error {
	if len(l.kept) == l.room {
		return errors.New("no space left on device")
	}
	l.kept = append(l.kept, fmt.Sprintf("%s %s %s: %s at %d, durable %t: %s",
		e.Caller, e.Action, e.Object, e.Result, e.Revision, e.Durable, e.Detail))
	return nil
}

// TestJoinAudit tests the audit lines on a joiner, and that no member joins without the first of them.
func TestJoinAudit(t *testing.T) {
	const (
		line    = "joiner 0102030000000000 join cluster m4: "
		details = ", durable true: address m4.test:8443, token t1"
		begun   = line + "begun at 0" + details
	)
	refusal := status.Error(codes.PermissionDenied, "the token was used")
	joiner := membership.Joiner{
		MemberID: "m4", Identity: memberid.Digest{1, 2, 3}, Address: "m4.test:8443", TokenID: "t1",
	}
	for name, test := range map[string]struct {
		room     int
		awaiting bool
		admit    error
		err      string
		kept     []string
	}{
		"joined": {room: 2, kept: []string{begun, line + "done at 7" + details}},
		"awaiting approval": {
			room: 2, awaiting: true, kept: []string{begun, line + "awaiting approval at 7" + details},
		},
		"not added": {
			room: 2, admit: refusal, err: refusal.Error(),
			kept: []string{begun, line + "failed at 7" + details + ": the token was used"},
		},
		"no first line": {
			err: "join cluster m4: not done, because it cannot be audited: no space left on device; make room on the " +
				"member's disk, or use another member",
		},
		"no second line": {room: 1, kept: []string{begun}},
	} {
		t.Run(name, func(t *testing.T) {
			log, ran := &auditLines{room: test.room}, false
			err := joinAudit{log}.AuditJoin(joiner, func() (membership.Admission, error) {
				ran = true
				return membership.Admission{Revision: 7, Awaiting: test.awaiting}, test.admit
			})
			require.Equal(t, test.room > 0, ran)
			require.Equal(t, test.kept, log.kept)
			if test.err == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.err)
			if !ran {
				require.Equal(t, codes.Unavailable, status.Code(err), "the joiner tries another member")
			}
		})
	}

	log := &auditLines{room: 1}
	joinAudit{log}.AuditRefusal(joiner, refusal)
	require.Equal(t, []string{line + "the token was used at 0" + details}, log.kept)
}
