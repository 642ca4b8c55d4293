package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// Update runs a transaction: fn reads and writes rows of this member's state, and what it wrote is committed if all that it
// read is still so; otherwise fn runs again on the newer state. It therefore may run several times, and must do nothing but
// read and write through its Tx.
//
// When Update returns a revision, a majority has the changes on disk and this member has applied them. An error of fn comes
// back as it is, and nothing is written; so is nothing when fn wrote nothing. In both cases what fn read was checked with the
// leader, so that it is not a stale state that speaks; only an error of fn is returned unchecked if there is no leader.
//
// Other errors: [ErrNoLeader], [ErrBusy] and [ErrTooLarge], after which nothing was written; [ErrUnknownOutcome]; [ErrClosed]
// and the errors of ctx, after which nothing was written.
func (s *Store) Update(ctx context.Context, fn func(tx *Tx) error) (Revision, error) {
	u := updating{store: s, by: s.commands.next()}
	for {
		if err := s.alive(ctx); err != nil {
			return 0, err
		}
		revision, again, err := u.attempt(ctx, fn)
		if !again {
			return revision, err
		}
		u.rejections++
	}
}

// alive returns why nothing can be done any more, if so.
func (s *Store) alive(ctx context.Context) error {
	select {
	case <-s.closed:
		return ErrClosed
	default:
		return ctx.Err()
	}
}

// updating is one call of Update.
type updating struct {
	store      *Store
	by         uint64 // names the transaction over its attempts
	rejections uint32
	current    bool // the state was known to be as new as the call at least once
}

func (u *updating) attempt(ctx context.Context, fn func(tx *Tx) error) (_ Revision, again bool, _ error) {
	tx := newTx(u.store.fsm.state())
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
	o, err := u.store.send(ctx, command, &ententev1.ProposeRequest{Rejections: u.rejections, Transaction: u.by})
	if err != nil {
		return 0, false, err
	}
	if err := u.store.caughtUp(ctx, o.revision); err != nil {
		if o.applied {
			return 0, false, fmt.Errorf("written at revision %d, which this member has not reached: %w: %w", o.revision, ErrUnknownOutcome, err)
		}
		return 0, false, err
	}
	return Revision(o.revision), !o.applied, nil
}

// confirm makes sure that a transaction that writes nothing did not see a state older than the call.
func (u *updating) confirm(ctx context.Context, tx *Tx, result error) (_ Revision, again bool, _ error) {
	if u.current || len(tx.read) == 0 && len(tx.listed) == 0 {
		return tx.Revision(), false, result
	}
	index, err := u.store.readIndex(ctx)
	if err == nil {
		err = u.store.caughtUp(ctx, index)
	}
	switch {
	case err != nil && result != nil:
		return 0, false, result
	case err != nil:
		return 0, false, err
	}
	u.current = true
	return tx.Revision(), !tx.unchanged(u.store.fsm.state()), result
}

// caughtUp returns once this member has applied a revision, or with [ErrBehind] when it does not come that far for a while:
// its disk may be full, while the others go on.
func (s *Store) caughtUp(ctx context.Context, revision uint64) error {
	open, release := s.until(ctx)
	defer release()
	waiting, cancel := context.WithTimeout(open, s.config.Timing.LeaderWait)
	defer cancel()
	err := s.fsm.progress.wait(waiting, revision)
	if errors.Is(err, context.DeadlineExceeded) && open.Err() == nil {
		return fmt.Errorf("revision %d, while this member is at %d: %w", revision, s.fsm.state().revision, ErrBehind)
	}
	return s.orClosed(err)
}

// until derives a context that also ends when the store is closed.
func (s *Store) until(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// orClosed replaces an error that came from closing the store.
func (s *Store) orClosed(err error) error {
	if err != nil && s.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}

// commit sends a command until its outcome is known, and waits for this member to apply it.
func (s *Store) commit(ctx context.Context, c *statev1.Command) (outcome, error) {
	o, err := s.send(ctx, c, &ententev1.ProposeRequest{Transaction: s.commands.next()})
	if err != nil {
		return outcome{}, err
	}
	if err := s.caughtUp(ctx, o.revision); err != nil {
		return outcome{}, fmt.Errorf("decided at revision %d, which this member has not reached: %w: %w", o.revision, ErrUnknownOutcome, err)
	}
	return o, nil
}

// send gives a command its ID and sends it until its outcome is known, or cannot be.
func (s *Store) send(ctx context.Context, c *statev1.Command, request *ententev1.ProposeRequest) (outcome, error) {
	release, err := s.commands.acquire(ctx)
	if err != nil {
		return outcome{}, err
	}
	defer release()
	id, settled := s.commands.open()
	defer s.commands.settle(id.GetCounter())
	c.Id, c.Settled = id, settled
	if request.Command, err = proto.Marshal(c); err != nil {
		return outcome{}, fmt.Errorf("encode a command: %w", err)
	}
	if size := len(request.Command); size > maxCommand {
		return outcome{}, fmt.Errorf("the command has %d bytes, and at most %d are taken: %w", size, maxCommand, ErrTooLarge)
	}
	ctx, cancel := s.until(ctx)
	defer cancel()
	d := delivery{store: s, command: c, request: request}
	o, err := d.run(ctx)
	if err == nil {
		return o, nil
	}
	err = s.orClosed(err)
	if d.unclear && !errors.Is(err, ErrUnknownOutcome) {
		err = fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	return outcome{}, err
}

// maxOpen is how many commands of one member are under way at a time.
const maxOpen = 1024

// commands numbers this member's commands and knows which of them are still open.
type commands struct {
	member      string
	incarnation uint64
	slots       chan struct{}
	mu          sync.Mutex
	last        uint64
	// opened holds the counters in use. Transactions, which are numbered too, never are in the log and do not count.
	opened map[uint64]bool
	lowest uint64
}

func newCommands(member string, incarnation uint64) *commands {
	return &commands{member: member, incarnation: incarnation, slots: make(chan struct{}, maxOpen), opened: map[uint64]bool{}, lowest: 1}
}

// next draws a number.
func (c *commands) next() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	return c.last
}

// open draws the ID of a new command, and says below which counter all commands are settled.
func (c *commands) open() (id *statev1.CommandID, settled uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.opened[c.last] = true
	for c.lowest < c.last && !c.opened[c.lowest] {
		c.lowest++
	}
	return &statev1.CommandID{Member: c.member, Incarnation: c.incarnation, Counter: c.last}, c.lowest
}

// settle ends a command: its outcome is known, or nobody waits for it any more. Then it will never be applied if it was not.
func (c *commands) settle(counter uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.opened, counter)
}

// acquire waits for room among the commands under way.
func (c *commands) acquire(ctx context.Context) (release func(), _ error) {
	select {
	case c.slots <- struct{}{}:
		return func() { <-c.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
