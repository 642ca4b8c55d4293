package access

import (
	"context"
	"crypto/rand"

	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/access/record"
	"github.com/ententehq/entente/raftstore/repeat"
)

// begin writes the line before a call, and refuses a call that cannot be audited. It returns nil for a call that needs
// no lines.
func (g *Guard) begin(c Call) (*audit.Action, error) {
	if c.Rule.Audit != Audited && c.Rule.Audit != AuditedDurably {
		return nil, nil
	}
	a, err := audit.Begin(g.cfg.Log, audit.Event{
		Caller: c.Caller.String(), Action: shortMethod(c.Method), Object: c.Target.Object,
		Call: rand.Text()[:12], Durable: c.Rule.Audit == AuditedDurably,
	})
	if err != nil {
		g.metrics.denied(c.Method, ReasonUnaudited)
		return nil, &Refusal{ReasonUnaudited, err.Error()}
	}
	return a, nil
}

// administrative returns the call for the cluster's record of administrative changes, or nil if it does not belong
// there.
func (g *Guard) administrative(c Call, a *audit.Action) *record.Call {
	if c.Rule.Audit != AuditedDurably {
		return nil
	}
	made := record.NewCall(g.cfg.Store, g.cfg.Now)
	describeTo(made, a)
	return made
}

// describeTo describes a call to the record as its lines do to the audit log.
func describeTo(made *record.Call, a *audit.Action) {
	line := a.Lines[0]
	made.Describe(record.Description{
		Caller: line.Caller, Action: line.Action, Object: line.Object, Call: line.Call,
	})
}

// recorded completes the record of a call that has been done. It cannot be undone if that fails.
func (g *Guard) recorded(ctx context.Context, made *record.Call) {
	if err := made.End(ctx); err != nil {
		g.cfg.Logger.Warn("a call is in the audit log of this member alone: the cluster's record of administrative "+
			"changes could not be written", "error", err)
	}
}

// end writes the line after a call, if the call has lines. If earlier is not nil, the call repeats that one.
func end(a *audit.Action, response any, earlier *repeat.Made, err error) {
	if a == nil {
		return
	}
	line := &a.Lines[0]
	if err != nil {
		s := status.Convert(plainStatus(err))
		line.Detail = s.Code().String() + ": " + s.Message()
	} else if earlier != nil {
		line.Detail, line.Revision = "repeated: it was made before, and nothing is changed", uint64(earlier.Revision)
	} else if r, ok := response.(interface{ GetRevision() uint64 }); ok {
		line.Revision = r.GetRevision()
	}
	_ = a.End(err) // it is the error of the call
}
