package record

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

// Call is one call of an administrative method. Each transaction that runs with its context and writes something adds
// the call to the record. A nil Call, that of any other method, adds nothing.
type Call struct {
	store *raftstore.Store
	now   func() time.Time

	mu   sync.Mutex
	what Description
	// transacted is true once a transaction has run with the context.
	transacted bool
}

// Description is what the record contains of a call: see audit.Event.
type Description struct {
	Caller, Action, Object, Call string
}

// NewCall returns a call that is described later, by [Call.Describe].
func NewCall(store *raftstore.Store, now func() time.Time) *Call {
	return &Call{store: store, now: now}
}

// Describe sets what the record contains. Transactions before it fail.
func (c *Call) Describe(what Description) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.what = what
}

// Context returns the context for the handler of the call.
func (c *Call) Context(ctx context.Context) context.Context {
	if c == nil {
		return ctx
	}
	return raftstore.WithCompanion(ctx, c.companion)
}

func (c *Call) companion(tx *raftstore.Tx, writes bool) error {
	c.mu.Lock()
	what := c.what
	c.transacted = true
	c.mu.Unlock()
	if !writes {
		return nil
	}
	if what == (Description{}) {
		return fmt.Errorf("an administrative change was made before the guard knew what it was: report this defect")
	}
	return appendChange(tx, c.row(what))
}

func (c *Call) row(what Description) *statev1.AdministrativeChange {
	return &statev1.AdministrativeChange{
		Time: timestamppb.New(c.now()), Member: c.store.MemberID(), Caller: clip(what.Caller),
		Action: clip(what.Action), Object: clip(what.Object), Call: clip(what.Call),
	}
}

// addLimit bounds the addition of a call that ran no transaction of its own.
const addLimit = 3 * time.Second

// End is called after the handler has done what the call requests. If no transaction ran with the context, because the
// leader acts on the member's behalf or the call only reads, it adds the call by a transaction of its own.
func (c *Call) End(ctx context.Context) error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	what, transacted := c.what, c.transacted
	c.mu.Unlock()
	if transacted {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), addLimit)
	defer cancel()
	_, err := c.store.Update(raftstore.WithCompanion(ctx, nil), func(tx *raftstore.Tx) error {
		return appendChange(tx, c.row(what))
	})
	return err
}
