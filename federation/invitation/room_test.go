package invitation

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// room has the agreements of one cluster under test.
type room struct {
	store   *raftstore.Store
	mirror  *mirror.Mirror
	manager *Agreements
	service operator
}

// newRoom returns a room on a store of one member. Nothing runs before run.
func newRoom(t testing.TB, adjust ...func(*Config)) *room {
	t.Helper()
	r := &room{store: raftstoretest.New(t), mirror: mirror.New()}
	index := federationtest.Trust(relationship.TrustSource())
	federationtest.MarkAlive(t, r.store, r.store.MemberID())
	c := Config{
		Store: r.store, Trust: index, Mirror: r.mirror,
		Audit: &federationtest.AuditLog{}, Alive: federationtest.Alive,
		Home: "eu.example.org", Log: hclog.NewNullLogger(), Now: time.Now,
		Streamed: func(string, string) bool { return false },
		Show: func(_ context.Context, view *raftstore.View, name string) (*ententev1.Relationship, error) {
			row, err := relationship.Get(index.Sources, view, name)
			return &ententev1.Relationship{TrustDomain: name, State: relationship.StateOf(row)}, err
		},
	}
	for _, f := range adjust {
		f(&c)
	}
	var err error
	c.Intake, err = intake.New(intake.Config{
		Store: c.Store, Trust: c.Trust, Audit: c.Audit, MinRefresh: relationship.DefaultMinRefresh, Log: c.Log,
		Now: c.Now,
	})
	require.NoError(t, err)
	r.manager, err = New(c)
	require.NoError(t, err)
	r.service = operator{r.manager}
	return r
}

// run exchanges consents, with a mirror that follows the store, until the test ends.
func (r *room) run(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- r.manager.Run(ctx) }()
	go func() {
		ended <- feed.Latest(ctx, r.store, []raftstore.Prefix{relationship.Relationships.Prefix("")},
			func(v *raftstore.View) error {
				return r.mirror.Load(v, func(err error) { t.Error(err) })
			})
	}()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				require.NoError(t, err)
			}
		}
	})
}

// host makes the cluster the authority of a domain.
func (r *room) host(t testing.TB, a *federationtest.Authority) {
	t.Helper()
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return federationtest.HostedBundles.Put(tx, a.TrustDomain.Name(), a.Bundle(t, 1).Row(time.Now()))
	})
	require.NoError(t, err)
}

// operator has the operators' calls that another package serves.
type operator struct{ *Agreements }

func (o operator) ApproveRelationship(
	ctx context.Context,
	req *ententev1.ApproveRelationshipRequest,
) (raftstore.Revision, error) {
	revision, err := o.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		return relationship.Approve(o.config.Trust.Sources, tx, req.GetTrustDomain(), "an operator", o.config.Now())
	})
	o.Trigger(req.GetTrustDomain())
	return revision, err
}

func (o operator) DeleteRelationship(
	ctx context.Context,
	req *ententev1.DeleteRelationshipRequest,
) (raftstore.Revision, error) {
	var ended *statev1.Relationship
	revision, err := o.config.Store.Update(ctx, func(tx *raftstore.Tx) (err error) {
		if ended, err = relationship.Get(o.config.Trust.Sources, tx, req.GetTrustDomain()); err != nil {
			return err
		}
		return relationship.DeleteWithLinkedHome(o.config.Trust.Sources, tx, ended, req.GetToHub())
	})
	o.Terminated(ended)
	return revision, err
}

// until waits for a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(federationtest.WaitLimit)
	defer deadline.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}
