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

// table has a row for each host name that a member is ordering a web certificate for, and for nobody else. Rows
// go with the order, or with the next order of any name once their lease is over.
var table = raftstore.NewTable[*statev1.EndpointOrder]("endpoint_orders")

const (
	// answerTimeout bounds the look at the leader's state for one handshake.
	answerTimeout = 3 * time.Second
	// maxAnswering bounds how many handshakes look there at a time; anybody can open them.
	maxAnswering = 8
)

// Orders implements [webcert.Orders] over the replicated state.
type Orders struct {
	store     *raftstore.Store
	member    string
	now       func() time.Time
	answering chan struct{} // has a buffer of maxAnswering
}

func New(store *raftstore.Store, member string) *Orders {
	return &Orders{store: store, member: member, now: time.Now, answering: make(chan struct{}, maxAnswering)}
}

// holds says whether row is somebody's turn at the moment. A lease that ends later than any could that began now was
// written by a clock that is off, and counts for nothing.
func holds(row *statev1.EndpointOrder, now time.Time) bool {
	until := row.GetUntil().AsTime()
	return row != nil && now.Before(until) && !until.After(now.Add(2*webcert.OrderLease))
}

// errTurn ends the wait for a turn.
var errTurn = errors.New("the turn has come")

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

// await returns when a turn has changed hands, or is over by the clock.
func (o *Orders) await(ctx context.Context, host string, holder *statev1.EndpointOrder) error {
	lease, cancel := context.WithTimeout(ctx, holder.GetUntil().AsTime().Sub(o.now()))
	defer cancel()
	err := feed.Latest(lease, o.store, []raftstore.Prefix{table.Prefix(host)}, func(v *raftstore.View) error {
		row, ok, err := table.Get(v, host)
		if err == nil && (!ok || row.Value.GetMember() != holder.GetMember()) {
			return errTurn
		}
		return err
	})
	if ctx.Err() == nil && (errors.Is(err, errTurn) || lease.Err() != nil) {
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
			return fmt.Errorf("the order of a certificate for %s took longer than %s, and its turn is over", host, webcert.OrderLease)
		}
		return nil
	})
	return err
}

// Answer implements [webcert.Orders]. What this member does not know yet it looks up in the leader's state: the ACME server
// asks as soon as the member that orders has its write, which may be before this one has it.
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
