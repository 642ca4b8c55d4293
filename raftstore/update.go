package raftstore

import (
	"context"
	"fmt"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/internal/machine"
)

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
