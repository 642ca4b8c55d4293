package raftstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/internal/machine"
	"github.com/ententehq/entente/raftstore/internal/row"
)

// maxTransactionBytes is what a transaction may take of a command; the rest is for its ID.
const maxTransactionBytes = machine.MaxCommand - 1024

// Tx is a transaction under way. It reads the state that it began with, and what it wrote itself, and records both. It
// belongs to the function that [Store.Update] calls, and to one goroutine. Rows that it wrote itself have revision 0.
type Tx struct {
	state    *machine.State
	read     map[row.ID]uint64 // the revision that each row was read at; 0: absent
	listed   map[Prefix]bool
	written  map[row.ID][]byte // nil: deleted
	size     int
	limit    int // of size: far past what a command holds, but before memory is filled
	tooLarge error
	// committed are called once the transaction is committed.
	committed []func(ctx context.Context)
}

func newTx(s *machine.State) *Tx {
	return &Tx{
		state:   s,
		read:    map[row.ID]uint64{},
		listed:  map[Prefix]bool{},
		written: map[row.ID][]byte{},
		limit:   4 * machine.MaxCommand,
	}
}

// OnCommit makes [Store.Update] call fn, with its context and before it returns, once what this run of the transaction
// wrote is committed. If the transaction runs again, what its earlier runs passed is forgotten. fn must not block.
func (tx *Tx) OnCommit(fn func(ctx context.Context)) { tx.committed = append(tx.committed, fn) }

// Revision returns the revision of the state on which the transaction runs.
func (tx *Tx) Revision() Revision { return Revision(tx.state.Revision) }

// ClusterID returns the identity of the cluster.
func (tx *Tx) ClusterID() string { return tx.state.ClusterID }

func (tx *Tx) row(table, key string) (*machine.Row, bool) {
	if row.CheckKey(key) != nil {
		return nil, false // no row can ever have this key: there is nothing to compare when the command is applied
	}
	id := row.ID{Table: table, Key: key}
	if value, ok := tx.written[id]; ok {
		return &machine.Row{Table: table, Key: key, Value: value}, value != nil
	}
	e, ok := tx.state.Get(table, key)
	if !ok {
		tx.read[id] = 0
		return nil, false
	}
	tx.read[id] = e.Revision
	return e, true
}

func (tx *Tx) rows(table, prefix string) iter.Seq[*machine.Row] {
	tx.listed[Prefix{Table: table, Key: prefix}] = true
	stored := tx.state.Below(table, prefix)
	if len(tx.written) == 0 {
		return stored
	}
	return tx.withWritten(stored, table, prefix)
}

// withWritten merges what the transaction wrote with what is stored, in key order.
func (tx *Tx) withWritten(stored iter.Seq[*machine.Row], table, prefix string) iter.Seq[*machine.Row] {
	var own []string
	for id := range tx.written {
		if id.Table == table && strings.HasPrefix(id.Key, prefix) {
			own = append(own, id.Key)
		}
	}
	slices.Sort(own)
	// What was written is looked up now, because a caller may write while it lists.
	entries := make([]*machine.Row, len(own))
	for i, key := range own {
		id := row.ID{Table: table, Key: key}
		entries[i] = &machine.Row{Table: table, Key: key, Value: tx.written[id]}
	}
	return func(yield func(*machine.Row) bool) {
		next := 0
		before := func(e *machine.Row) bool { // yields the written rows that come before e, or replace it
			for next < len(entries) && (e == nil || entries[next].Key < e.Key) {
				if w := entries[next]; w.Value != nil && !yield(w) {
					return false
				}
				next++
			}
			return true
		}
		for e := range stored {
			if !before(e) {
				return
			}
			if next < len(entries) && entries[next].Key == e.Key {
				e = entries[next]
				next++
			}
			if e.Value != nil && !yield(e) {
				return
			}
		}
		before(nil)
	}
}

func (tx *Tx) prefixRevision(table, prefix string) Revision {
	tx.listed[Prefix{Table: table, Key: prefix}] = true
	return tx.state.PrefixRevision(table, prefix)
}

// write records a change; a nil value deletes. A row that has the value already is recorded as read instead, so that
// the transaction still fails if another changes it.
func (tx *Tx) write(table, key string, value []byte) error {
	id := row.ID{Table: table, Key: key}
	stored, exists := tx.state.Get(table, key)
	if value == nil && !exists || value != nil && exists && bytes.Equal(value, stored.Value) {
		delete(tx.written, id)
		tx.read[id] = 0
		if exists {
			tx.read[id] = stored.Revision
		}
		return nil
	}
	if value != nil && len(value) == 0 {
		value = []byte{} // an empty message is a value
	}
	tx.written[id] = value
	if tx.size += len(table) + len(key) + len(value); tx.size > tx.limit {
		tx.tooLarge = fmt.Errorf(
			"transaction writes more than %d bytes with row %q of %s: %w",
			tx.limit,
			key,
			table,
			ErrTooLarge,
		)
		return tx.tooLarge
	}
	return nil
}

// command turns what was recorded into a transaction for the log, in an order that depends only on the contents.
func (tx *Tx) command() (*statev1.Transaction, error) {
	if tx.tooLarge != nil {
		return nil, tx.tooLarge
	}
	c := &statev1.Transaction{Base: tx.state.Revision}
	for _, p := range sortedPrefixes(tx.listed) {
		c.Prefixes = append(c.Prefixes, &statev1.PrefixCondition{Table: p.Table, Prefix: p.Key})
	}
	for _, id := range sortedRows(maps.Keys(tx.read)) {
		if tx.covered(id) {
			continue
		}
		c.Rows = append(c.Rows, &statev1.RowCondition{Table: id.Table, Key: id.Key, Revision: tx.read[id]})
	}
	for _, id := range sortedRows(maps.Keys(tx.written)) {
		c.Changes = append(c.Changes, &statev1.RowChange{Table: id.Table, Key: id.Key, Value: tx.written[id]})
	}
	if size := proto.Size(c); size > maxTransactionBytes {
		return nil, fmt.Errorf(
			"transaction reads and writes %d bytes, and the limit of a command is %d: %w",
			size,
			maxTransactionBytes,
			ErrTooLarge,
		)
	}
	return c, nil
}

// covered reports whether a prefix that was listed covers a row that was read.
func (tx *Tx) covered(id row.ID) bool {
	for p := range tx.listed {
		if p.Holds(id.Table, id.Key) {
			return true
		}
	}
	return false
}

// unchanged reports whether everything that the transaction read is the same in a later state.
func (tx *Tx) unchanged(in *machine.State) bool {
	for id, revision := range tx.read {
		var now uint64
		if e, ok := in.Get(id.Table, id.Key); ok {
			now = e.Revision
		}
		if now != revision {
			return false
		}
	}
	for p := range tx.listed {
		if in.ChangedSince(p.Table, p.Key, tx.state.Revision) {
			return false
		}
	}
	return true
}

// sortedPrefixes leaves out prefixes that lie below another.
func sortedPrefixes(set map[Prefix]bool) []Prefix {
	all := slices.Collect(maps.Keys(set))
	slices.SortFunc(
		all,
		func(a, b Prefix) int { return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Key, b.Key)) },
	)
	var kept []Prefix
	for _, p := range all {
		if n := len(kept); n == 0 || !kept[n-1].Holds(p.Table, p.Key) {
			kept = append(kept, p)
		}
	}
	return kept
}

func sortedRows(ids iter.Seq[row.ID]) []row.ID {
	all := slices.Collect(ids)
	slices.SortFunc(
		all,
		func(a, b row.ID) int { return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Key, b.Key)) },
	)
	return all
}

// Companion runs at the end of every transaction of a context: see [WithCompanion]. writes reports whether the
// transaction writes anything; if not, the companion must not either.
type Companion func(tx *Tx, writes bool) error

type companionKey struct{}

// WithCompanion returns a context with which each run of a transaction by [Store.Update] ends with companion, after the
// function of the transaction and with the same duties. What it writes is committed with the rest, at the same
// revision, or not at all. It suits what a caller has to add to the transactions of the rooms that it calls.
func WithCompanion(ctx context.Context, companion Companion) context.Context {
	return context.WithValue(ctx, companionKey{}, companion)
}

// WithoutCompanion returns a context like ctx without a companion, for a transaction that is not part of the call, such
// as that of a member's own row.
func WithoutCompanion(ctx context.Context) context.Context { return WithCompanion(ctx, nil) }

// JoinCompanion returns a context like [WithCompanion], in which the companion of ctx, if it has one, runs before the
// other.
func JoinCompanion(ctx context.Context, companion Companion) context.Context {
	first := companionOf(ctx)
	if first == nil {
		return WithCompanion(ctx, companion)
	}
	return WithCompanion(ctx, func(tx *Tx, writes bool) error {
		if err := first(tx, writes); err != nil {
			return err
		}
		return companion(tx, writes)
	})
}

func companionOf(ctx context.Context) Companion {
	companion, _ := ctx.Value(companionKey{}).(Companion)
	return companion
}

// updating is one call of [Store.Update].
type updating struct {
	machine    *machine.Machine
	sender     *sender
	by         uint64 // names the transaction over its attempts
	rejections uint32
	current    bool // the state was known to be as new as the call at least once
}

// attempt runs the function once. It reports whether the function must run again.
func (u *updating) attempt(ctx context.Context, fn func(tx *Tx) error) (_ Revision, again bool, _ error) {
	tx := newTx(u.machine.State())
	err := fn(tx)
	if companion := companionOf(ctx); err == nil && companion != nil {
		err = companion(tx, len(tx.written) > 0)
	}
	if err == nil && tx.tooLarge != nil {
		err = tx.tooLarge
	}
	if err != nil || len(tx.written) == 0 {
		return u.confirm(ctx, tx, err)
	}
	transaction, err := tx.command()
	if err != nil {
		return 0, false, err
	}
	command := &statev1.Command{Kind: &statev1.Command_Transaction{Transaction: transaction}}
	o, err := u.sender.send(ctx, command, &ententev1.ProposeRequest{Rejections: u.rejections, Transaction: u.by})
	if err != nil {
		return 0, false, err
	}
	if err := u.sender.reads.reach(ctx, o.Revision); err != nil {
		if o.Applied {
			return 0, false, fmt.Errorf("written at revision %d, which this member has not reached: %w: %w",
				o.Revision, ErrUnknownOutcome, err)
		}
		return 0, false, err
	}
	if o.Applied {
		for _, fn := range tx.committed {
			fn(ctx)
		}
	}
	return Revision(o.Revision), !o.Applied, nil
}

// confirm checks that a transaction that writes nothing did not see a state older than the call.
func (u *updating) confirm(ctx context.Context, tx *Tx, result error) (_ Revision, again bool, _ error) {
	if u.current || len(tx.read) == 0 && len(tx.listed) == 0 {
		return tx.Revision(), false, result
	}
	index, err := u.sender.reads.index(ctx)
	if err == nil {
		err = u.sender.reads.reach(ctx, index)
	}
	switch {
	case err != nil && result != nil:
		return 0, false, result
	case err != nil:
		return 0, false, err
	}
	u.current = true
	return tx.Revision(), !tx.unchanged(u.machine.State()), result
}

// errDryRun ends a transaction that is not to be written.
var errDryRun = errors.New("dry run")

// Try runs a transaction as [Store.Update] does, refusals included, and writes nothing.
func Try(ctx context.Context, store *Store, fn func(tx *Tx) error) error {
	_, err := store.Update(ctx, func(tx *Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return errDryRun
	})
	if errors.Is(err, errDryRun) {
		return nil
	}
	return err
}
