// Package acmeorders makes the members of a cluster take turns when they order web certificates from an ACME server,
// and lets every member answer the server's challenges. Both go through one replicated table, with a row for each host
// name that is being ordered. [Orders] implements webcert.Orders; start reading at Acquire.
package acmeorders

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle/webcert"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
)

// table has a row for each host name that a member currently orders a web certificate for. The member deletes the row
// after the order. A row whose lease has ended is deleted by the next order for any name.
var table = raftstore.NewTable[*statev1.EndpointOrder]("endpoint_orders")

const (
	// answerTimeout is the limit for reading the leader's state in one handshake.
	answerTimeout = 3 * time.Second
	// maxAnswering is the limit of handshakes that read the leader's state at a time: any host can open them.
	maxAnswering = 8
)

// Orders implements [webcert.Orders] on the replicated state.
type Orders struct {
	store     *raftstore.Store
	member    string
	now       func() time.Time
	answering chan struct{} // a semaphore of maxAnswering
}

// New returns the orders of a member.
func New(store *raftstore.Store, member string) *Orders {
	return &Orders{store: store, member: member, now: time.Now, answering: make(chan struct{}, maxAnswering)}
}

// holds reports whether the lease of a row is in force. It ignores a lease that ends later than any lease that begins
// now: it was written by a member whose clock is wrong.
func holds(row *statev1.EndpointOrder, now time.Time) bool {
	until := row.GetUntil().AsTime()
	return row != nil && now.Before(until) && !until.After(now.Add(2*webcert.OrderLease))
}

// errFree ends the wait for a lease.
var errFree = errors.New("the lease has ended")

// Acquire implements [webcert.Orders].
func (o *Orders) Acquire(ctx context.Context, host string) error {
	for {
		var holder *statev1.EndpointOrder
		_, err := o.store.Update(ctx, func(tx *raftstore.Tx) error {
			holder = nil
			now := o.now()
			for row, err := range table.All(tx, "") {
				switch {
				case err != nil:
					return err
				case !holds(row.Value, now):
					if err := table.Delete(tx, row.Key); err != nil {
						return err
					}
				case row.Key == host && row.Value.GetMember() != o.member:
					holder = row.Value
				}
			}
			if holder != nil {
				return nil
			}
			return table.Put(tx, host, &statev1.EndpointOrder{
				Member: o.member, Until: timestamppb.New(now.Add(webcert.OrderLease)),
			})
		})
		if err != nil || holder == nil {
			return err
		}
		if err := o.await(ctx, host, holder); err != nil {
			return err
		}
	}
}

// await returns when the holder has released its lease, or the lease has ended by the clock.
func (o *Orders) await(ctx context.Context, host string, holder *statev1.EndpointOrder) error {
	lease, cancel := context.WithTimeout(ctx, holder.GetUntil().AsTime().Sub(o.now()))
	defer cancel()
	err := feed.Latest(lease, o.store, []raftstore.Prefix{table.Prefix(host)}, func(v *raftstore.View) error {
		row, ok, err := table.Get(v, host)
		if err == nil && (!ok || row.Value.GetMember() != holder.GetMember()) {
			return errFree
		}
		return err
	})
	if ctx.Err() == nil && (errors.Is(err, errFree) || lease.Err() != nil) {
		return nil
	}
	return errors.Join(err, ctx.Err())
}

// Release implements [webcert.Orders].
func (o *Orders) Release(ctx context.Context, host string) error {
	_, err := o.store.Update(ctx, func(tx *raftstore.Tx) error {
		row, ok, err := table.Get(tx, host)
		if err != nil || !ok || row.Value.GetMember() != o.member {
			return err
		}
		return table.Delete(tx, host)
	})
	return err
}

// Present implements [webcert.Orders].
func (o *Orders) Present(ctx context.Context, host, proof string) error {
	return o.answer(ctx, host, proof, true)
}

// Withdraw implements [webcert.Orders].
func (o *Orders) Withdraw(ctx context.Context, host string) error {
	return o.answer(ctx, host, "", false)
}

func (o *Orders) answer(ctx context.Context, host, proof string, needed bool) error {
	_, err := o.store.Update(ctx, func(tx *raftstore.Tx) error {
		row, ok, err := table.Get(tx, host)
		switch {
		case err != nil:
			return err
		case ok && row.Value.GetMember() == o.member:
			row.Value.KeyAuthorization = proof
			return table.Put(tx, host, row.Value)
		case needed:
			return fmt.Errorf("the order of a certificate for %s took longer than %s, and its lease has ended",
				host, webcert.OrderLease)
		}
		return nil
	})
	return err
}

// Answer implements [webcert.Orders]. If this member's state has no proof, it reads the leader's state: the ACME server
// connects as soon as the ordering member has its write, possibly before this member has applied it.
func (o *Orders) Answer(ctx context.Context, host string) (string, error) {
	if proof, err := o.proof(o.store.View(), host); proof != "" || err != nil {
		return proof, err
	}
	select {
	case o.answering <- struct{}{}:
		defer func() { <-o.answering }()
	default:
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	view, err := o.store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return "", err
	}
	return o.proof(view, host)
}

func (o *Orders) proof(view *raftstore.View, host string) (string, error) {
	row, ok, err := table.Get(view, host)
	if err != nil || !ok || !holds(row.Value, o.now()) {
		return "", err
	}
	return row.Value.GetKeyAuthorization(), nil
}
