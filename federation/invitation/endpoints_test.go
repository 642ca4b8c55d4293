package invitation

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// announcers are members of one cluster, each with files and a configuration of its own.
type announcers struct {
	t         *testing.T
	members   []*Agreements
	endpoints []*statev1.MemberEndpoint
	unread    []error
	listed    []Member
}

func newAnnouncers(t *testing.T, stores, listed int) *announcers {
	t.Helper()
	cluster := raftstoretest.NewCluster(t, stores)
	a := &announcers{t: t, endpoints: make([]*statev1.MemberEndpoint, stores), unread: make([]error, stores)}
	for i := range listed {
		a.listed = append(a.listed, Member{
			ID: fmt.Sprintf("member-%d", i+1), Address: fmt.Sprintf("eu-%d.example.org:7440", i+1),
			Identity: [32]byte{byte(i + 1)},
		})
	}
	for i := range stores {
		a.endpoints[i] = &statev1.MemberEndpoint{Address: fmt.Sprintf("eu-%d.example.org:%d", i+1, 443+i)}
		a.members = append(a.members, &Agreements{config: Config{
			Store: cluster.Store(i), Home: "eu.example.org", Log: hclog.NewNullLogger(), Now: time.Now,
			Transport: Transport{
				Members: func() []Member { // itself first
					return append([]Member{a.listed[i]}, append(a.listed[:i:i], a.listed[i+1:]...)...)
				},
				Endpoints: func(_ string, addresses []string) (urls []string) {
					for _, address := range addresses {
						urls = append(urls, "https://"+address)
					}
					return urls
				},
				Endpoint: func() (*statev1.MemberEndpoint, string, error) {
					return a.endpoints[i], "", a.unread[i]
				},
				EndpointPort: "443",
			},
		}})
	}
	return a
}

// stored has every member write its row, and every member have all rows.
func (a *announcers) stored() {
	a.t.Helper()
	for i, m := range a.members {
		_, err := m.config.storeEndpoint(a.t.Context())
		require.ErrorIs(a.t, err, a.unread[i])
		require.Equal(a.t, a.unread[i] != nil, errors.Is(err, errUnreadable))
	}
	for _, m := range a.members {
		_, err := m.config.Store.Read(a.t.Context(), raftstore.ReadOptions{Linearizable: true})
		require.NoError(a.t, err)
	}
}

// announced requires that a peer that applied the announcement of one member finds nothing new in those of the others,
// and returns the announcement.
func (a *announcers) announced(advertised ...string) relationship.Announcement {
	a.t.Helper()
	row := &statev1.Relationship{
		TrustDomain: "eu.example.org", Profile: int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB),
		Peer: &statev1.RelationshipPeer{}, Agreement: &statev1.RelationshipAgreement{WebRootsSha256: []byte{1}},
	}
	first := a.members[0].config.announcement("eu.example.org", advertised)
	first.Apply(row)
	for i, m := range a.members {
		told := m.config.announcement("eu.example.org", advertised)
		require.False(a.t, told.Apply(row), "member-%d announces something else than member-1: %v", i+1, told.Urls)
	}
	return first
}

// TestEveryMemberAnnouncesTheSame: what a cluster announces does not depend on the member that announces it, while the
// members are configured one after the other. Otherwise each one would replace at the peer what another announced.
func TestEveryMemberAnnouncesTheSame(t *testing.T) {
	old, next := federationtest.NewAuthority(t, "web.example.org").PEM(),
		federationtest.NewAuthority(t, "web.example.org").PEM()
	t.Run("web roots", func(t *testing.T) {
		a := newAnnouncers(t, 3, 3)
		for _, e := range a.endpoints {
			e.WebRoots = old
		}
		a.stored()
		require.Equal(t, string(old), string(a.announced().WebRoots))
		a.endpoints[1] = &statev1.MemberEndpoint{WebRoots: next}
		a.stored()
		require.Equal(t, 2, bytes.Count(a.announced().WebRoots, []byte("BEGIN")), "each endpoint is verified meanwhile")
		a.unread[2] = errors.New("no such file")
		a.endpoints[0] = &statev1.MemberEndpoint{WebRoots: next}
		a.stored()
		require.Equal(t, 2, bytes.Count(a.announced().WebRoots, []byte("BEGIN")), "what a member had before counts")
		a.unread[2], a.endpoints[2] = nil, &statev1.MemberEndpoint{WebRoots: next}
		a.stored()
		require.Equal(t, string(next), string(a.announced().WebRoots))
	})
	t.Run("a removed member", func(t *testing.T) {
		a := newAnnouncers(t, 3, 3)
		a.endpoints[0].WebRoots, a.endpoints[2].WebRoots = next, old
		a.stored()
		require.Equal(t, 2, bytes.Count(a.announced().WebRoots, []byte("BEGIN")))
		a.members, a.listed = a.members[:2], a.listed[:2]
		require.Equal(t, string(next), string(a.announced().WebRoots))
		a.endpoints[0] = &statev1.MemberEndpoint{WebRoots: old}
		a.stored()
		rows, err := endpoints.List(a.members[0].config.Store.View(), "")
		require.NoError(t, err)
		require.Len(t, rows, 2, "the row of the removed member is deleted with the next change")
	})
	t.Run("endpoints", func(t *testing.T) {
		a := newAnnouncers(t, 3, 3)
		require.Equal(t, []string{
			"https://eu-1.example.org:443", "https://eu-2.example.org:443", "https://eu-3.example.org:443",
		}, a.announced().Urls, "no row is written yet")
		a.stored()
		served := []string{
			"https://eu-1.example.org:443", "https://eu-2.example.org:444", "https://eu-3.example.org:445",
		}
		require.Equal(t, served, a.announced().Urls)
		require.Equal(t, []string{"https://lb.example.org:443"}, a.announced("lb.example.org:7440").Urls)
		a.endpoints[2] = &statev1.MemberEndpoint{Advertised: []string{"bundle.example.org:443"}}
		a.stored()
		require.Equal(t, []string{"https://bundle.example.org:443"}, a.announced().Urls)
	})
	t.Run("more members than a peer stores", func(t *testing.T) {
		a := newAnnouncers(t, 3, 11)
		a.members[0], a.members[2] = a.members[2], a.members[0]
		told := a.announced()
		require.Len(t, told.Addresses, relationship.MaxPeerAddresses)
		require.Len(t, told.Urls, relationship.MaxEndpoints)
	})
}
