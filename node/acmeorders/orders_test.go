package acmeorders

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle/webcert"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

func TestHolds(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	row := func(until time.Duration) *statev1.EndpointOrder {
		return &statev1.EndpointOrder{Member: "eu-1", Until: timestamppb.New(now.Add(until))}
	}
	for _, c := range []struct {
		name string
		row  *statev1.EndpointOrder
		want bool
	}{
		{"no row", nil, false},
		{"at the beginning", row(webcert.OrderLease), true},
		{"in its last second", row(time.Second), true},
		{"at its end", row(0), false},
		{"of a clock that is a minute ahead", row(webcert.OrderLease + time.Minute), true},
		{"of a clock that is a year ahead", row(365 * 24 * time.Hour), false},
		{"without an end", &statev1.EndpointOrder{Member: "eu-1"}, false},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, holds(c.row, now)) })
	}
}

func rows(t *testing.T, s *raftstore.Store) int {
	t.Helper()
	all, err := table.List(s.View(), "")
	require.NoError(t, err)
	return len(all)
}

func TestMembersTakeTurns(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := raftstoretest.NewCluster(t, 3)
	one, two := New(c.Store(0), "member-1"), New(c.Store(1), "member-2")
	bystander := New(c.Store(2), "member-3")

	require.NoError(t, one.Acquire(ctx, "b.example.org"))
	require.NoError(t, one.Acquire(ctx, "b.example.org"), "a restarted member continues")
	require.NoError(t, one.Present(ctx, "b.example.org", "proof-1"))
	require.EqualError(t, two.Present(ctx, "b.example.org", "proof-2"),
		"the order of a certificate for b.example.org took longer than 2m30s, and its lease has ended")
	require.NoError(t, two.Withdraw(ctx, "b.example.org"), "the lease of another member stays")
	proof, err := bystander.Answer(ctx, "b.example.org")
	require.NoError(t, err)
	require.Equal(t, "proof-1", proof, "every member has the answer")
	proof, err = bystander.Answer(ctx, "other.example.org")
	require.NoError(t, err)
	require.Empty(t, proof)

	// The second member gets the lease when the first one releases it.
	turn := make(chan error, 1)
	go func() { turn <- two.Acquire(ctx, "b.example.org") }()
	require.NoError(t, two.Acquire(ctx, "other.example.org"), "another name has a lease of its own")
	require.NoError(t, two.Release(ctx, "other.example.org"))
	require.NoError(t, one.Withdraw(ctx, "b.example.org"))
	select {
	case err := <-turn:
		t.Fatalf("two members had the lease at once: %v", err)
	default:
	}
	require.NoError(t, two.Release(ctx, "b.example.org"), "the lease of another member stays")
	require.NoError(t, one.Release(ctx, "b.example.org"))
	require.NoError(t, <-turn)
	require.NoError(t, two.Release(ctx, "b.example.org"))
	require.Zero(t, rows(t, c.Store(1)), "nothing is left")
}

func TestLeaseEndsWithoutItsHolder(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	store := raftstoretest.New(t)
	gone, here := New(store, "gone"), New(store, "here")
	require.NoError(t, gone.Acquire(ctx, "b.example.org"))
	require.NoError(t, gone.Present(ctx, "b.example.org", "proof"))
	require.NoError(t, gone.Acquire(ctx, "forgotten.example.org"))

	soon, over := context.WithCancel(ctx)
	over()
	require.ErrorIs(t, here.Acquire(soon, "b.example.org"), context.Canceled, "a wait ends with its context")

	later := time.Now().Add(webcert.OrderLease + time.Second)
	here.now = func() time.Time { return later }
	proof, err := here.Answer(ctx, "b.example.org")
	require.NoError(t, err)
	require.Empty(t, proof, "an answer is valid during the lease")
	require.NoError(t, here.Acquire(ctx, "b.example.org"))
	require.Equal(t, 1, rows(t, store), "the ended lease is deleted")
	require.EqualError(t, gone.Present(ctx, "b.example.org", "late"),
		"the order of a certificate for b.example.org took longer than 2m30s, and its lease has ended")
}
