package raftstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// operation is one operation of a client on one row.
type operation struct {
	key    string
	add    string // appended to the row by a transaction; empty: a linearizable read
	listed bool   // the read lists a prefix instead of getting a row
}

type result struct {
	value string
	known bool // false: the outcome is not known, and may come to pass at any time later
}

// rowModel is the sequential model of a row: an append returns the value before it, and a read the present value.
var rowModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, o := range history {
			key := o.Input.(operation).key
			byKey[key] = append(byKey[key], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		value, in, out := state.(string), input.(operation), output.(result)
		return !out.known || out.value == value, value + in.add
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// act does one operation on a store.
func act(ctx context.Context, s *raftstore.Store, o operation) (string, error) {
	if o.add == "" {
		v, err := s.Read(ctx, raftstore.ReadOptions{Linearizable: true})
		if err != nil {
			return "", err
		}
		if o.listed {
			rows, err := words.List(v, o.key)
			if err != nil || len(rows) == 0 {
				return "", err
			}
			return rows[0].Value.GetValue(), nil
		}
		row, _, err := words.Get(v, o.key)
		return row.Value.GetValue(), err
	}
	var found string
	_, err := s.Update(ctx, func(tx *raftstore.Tx) error {
		row, _, err := words.Get(tx, o.key)
		if err != nil {
			return err
		}
		found = row.Value.GetValue()
		return words.Put(tx, o.key, wrapperspb.String(found+o.add))
	})
	return found, err
}

// Whatever happens to members and network, every client sees one store that executes one operation at a time: an order
// of the operations explains all results.
func TestLinearizable(t *testing.T) {
	c := raftstoretest.NewCluster(t, 3)
	const clients, keys = 6, 3
	ctx, stop := context.WithCancel(t.Context())
	history := make([][]porcupine.Operation, clients)
	began := time.Now()
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(client)))
			for n := 0; ctx.Err() == nil; n++ {
				s := c.Store(random.IntN(3))
				if s == nil {
					s = c.Running()[0]
				}
				o := operation{key: fmt.Sprintf("row/%d", random.IntN(keys))}
				if random.IntN(2) == 0 {
					o.add = fmt.Sprintf("%d.%d ", client, n)
				}
				o.listed = random.IntN(2) == 0
				call := time.Since(began)
				value, err := act(ctx, s, o)
				op := porcupine.Operation{
					ClientId: client,
					Input:    o,
					Call:     int64(call),
					Return:   int64(time.Since(began)),
				}
				switch {
				case err == nil:
					op.Output = result{value: value, known: true}
				case o.add == "" || !errors.Is(err, raftstore.ErrUnknownOutcome):
					continue // a failed read has no result; a write that failed with another error was not made
				default:
					op.Output, op.Return = result{}, int64(time.Hour)
				}
				history[client] = append(history[client], op)
			}
		})
	}

	// Each trouble lasts until the cluster has come through it, and some writes were made in it.
	progress := func(i int) {
		s := c.Store(i)
		at := s.View().Revision()
		_, err := s.Read(ctx, raftstore.ReadOptions{MinRevision: at + 30})
		for ; errors.Is(err, raftstore.ErrBehind); _, err = s.Read(ctx, raftstore.ReadOptions{MinRevision: at + 30}) {
		}
		require.NoError(t, err)
	}
	for range 2 {
		leader := c.Leader()
		progress(leader)
		next := (leader + 1) % 3
		_ = c.Store(leader).Servers().TransferLeadership(ctx, c.Store(next).MemberID()) // one that fails is trouble too
		progress(c.Leader())

		leader = c.Leader()
		c.Partition(leader)
		progress(c.Leader((leader+1)%3, (leader+2)%3))
		c.Heal()
		progress(c.Leader())

		leader = c.Leader()
		c.Kill(leader)
		progress(c.Leader())
		c.Restart(leader)
		c.LoseAnswers(20)
		progress(c.Leader())
	}
	stop()
	group.Wait()

	var all []porcupine.Operation
	for _, h := range history {
		all = append(all, h...)
	}
	require.Greater(t, len(all), 200, "there is too little to check")
	require.True(t, porcupine.CheckOperations(rowModel, all), "no order explains what the clients saw")
	t.Logf("%d operations have a linear order", len(all))
}
