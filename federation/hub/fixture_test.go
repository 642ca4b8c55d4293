package hub

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/fetch"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// spoke is a cluster that takes attestations from hub.example.org.
type spoke struct {
	*Importer
	store    *raftstore.Store
	hub      *federationtest.Authority
	endpoint *federationtest.Endpoint
	ledger   *federationtest.AuditLog
	// streamed is whether a stream keeps the map up to date.
	streamed bool
}

// newSpoke returns a spoke with a relationship that takes the domains that are listed.
func newSpoke(t testing.TB, take ...string) *spoke {
	t.Helper()
	store := raftstoretest.New(t)
	s := &spoke{
		store:  store,
		hub:    federationtest.NewAuthority(t, "hub.example.org"),
		ledger: &federationtest.AuditLog{},
	}
	s.endpoint = federationtest.NewEndpoint(t, s.hub, s.hub.Bundle(t, 1))
	index := federationtest.Trust(relationship.TrustSource())
	in, err := intake.New(intake.Config{
		Store: store, Trust: index, Audit: s.ledger, MinRefresh: relationship.LowestMinRefresh,
		Log: hclog.NewNullLogger(), Now: time.Now,
	})
	require.NoError(t, err)
	routes := fetch.NewRoutes()
	s.Importer, err = NewImporter(Config{
		Store: store, Home: "spoke.example.org", Mirror: mirror.New(), Trust: index,
		Intake: in, Observations: observation.New(time.Now),
		Audit: s.ledger, Client: endpoint.ClientConfig{Timeout: 4 * federationtest.WaitLimit},
		Log: hclog.NewNullLogger(), Now: time.Now,
		Endpoint: func(name string, rel *relationship.Relationship) endpoint.Remote {
			return routes.Endpoint(name, rel, time.Now())
		},
		Covers: func(home, name string) bool {
			return s.streamed && home == "hub.example.org" && name == home+relationship.MapSuffix
		},
	})
	require.NoError(t, err)
	s.change(t, func(row *statev1.Relationship) {
		row.Url, row.Profile, row.EndpointSpiffeId = s.endpoint.URL, federationtest.SpiffeProfile, s.hub.EndpointID().
			String()
		row.CreateTime, row.Hub = timestamppb.Now(), &statev1.RelationshipHub{Include: take}
		row.Peer = &statev1.RelationshipPeer{HomeTrustDomain: "hub.example.org"}
	})
	_, err = store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return relationship.ForeignBundles.Put(tx, "hub.example.org", s.hub.Bundle(t, 1).Row(time.Now()))
	})
	require.NoError(t, err)
	return s
}

// change changes the relationship with the hub, as an operator does.
func (s *spoke) change(t testing.TB, fn func(row *statev1.Relationship)) {
	t.Helper()
	_, err := s.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		row, found, err := relationship.Relationships.Get(tx, "hub.example.org")
		if err != nil {
			return err
		}
		if !found {
			row.Value = &statev1.Relationship{TrustDomain: "hub.example.org"}
		}
		fn(row.Value)
		row.Value.Generation++
		return relationship.Relationships.Put(tx, "hub.example.org", row.Value)
	})
	require.NoError(t, err)
}

// basis returns what a reading depends on now.
func (s *spoke) basis(t testing.TB) intake.Basis {
	t.Helper()
	b, err := s.config.Intake.BasisOf(s.store.View(), "hub.example.org")
	require.NoError(t, err)
	return b
}

// read reads the map once and returns the result.
func (s *spoke) read(ctx context.Context, t testing.TB, w *fetch.Wait) string {
	t.Helper()
	result, _, err := s.readOnce(ctx, "hub.example.org", s.basis(t), w)
	require.NoError(t, err)
	return result
}

// sequence returns the sequence that the hub attests of a domain, or 0.
func (s *spoke) sequence(t testing.TB, td string) uint64 {
	t.Helper()
	a, found, err := relationship.TrustSource().Attest(s.store.View(), td)
	require.NoError(t, err)
	if !found {
		return 0
	}
	b, err := relationship.HubBundle(a.Row.Value)
	require.NoError(t, err)
	n, _ := b.Sequence()
	return n
}

func mapOf(t testing.TB, bundles ...*bundle.Bundle) []byte {
	t.Helper()
	document, err := bundle.MarshalMap(bundles)
	require.NoError(t, err)
	return document
}
