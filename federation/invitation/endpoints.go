package invitation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// endpoints has how other clusters reach and verify each member's bundle endpoint, by member ID. Members are configured
// one after the other, and their files differ meanwhile. What the cluster announces is made of all rows, so that it
// does not depend on the member that announces it.
var endpoints = raftstore.NewTable[*statev1.MemberEndpoint]("member_endpoints")

// Founded reports whether a row is one that the members of a new cluster write by themselves.
func Founded(_ *raftstore.View, table, _ string) bool { return table == endpoints.Name() }

// keepEndpoints keeps the rows over a restore: they are of the present members, and not of those in the snapshot.
func keepEndpoints(before, restored *raftstore.View, tx *raftstore.Tx) error {
	is, err := endpoints.List(restored, "")
	if err != nil {
		return err
	}
	was, err := endpoints.List(before, "")
	if err != nil {
		return err
	}
	var errs []error
	for _, row := range is {
		errs = append(errs, endpoints.Delete(tx, row.Key))
	}
	for _, row := range was {
		errs = append(errs, endpoints.Put(tx, row.Key, row.Value))
	}
	return errors.Join(errs...)
}

// errUnreadable is the error of files of this member that cannot be read.
var errUnreadable = errors.New("the offer of this cluster")

// storeEndpoint writes this member's row if its configuration or its files have changed. doubts are what other clusters
// may not be able to verify.
func (c *Config) storeEndpoint(ctx context.Context) (doubts []string, err error) {
	own, doubt, err := c.Transport.ownEndpoint()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if doubt != "" {
		doubts = []string{doubt}
	}
	id := c.Store.MemberID()
	row, found, err := endpoints.Get(c.Store.View(), id)
	if err != nil || found && proto.Equal(row.Value, own) {
		return doubts, err
	}
	_, err = c.Store.Update(raftstore.WithoutCompanion(ctx), func(tx *raftstore.Tx) error {
		rows, err := endpoints.List(tx, "")
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row.Key == id || c.isMember(row.Key) {
				continue
			}
			if err := endpoints.Delete(tx, row.Key); err != nil {
				return err
			}
		}
		return endpoints.Put(tx, id, own)
	})
	return doubts, err
}

// ownEndpoint returns the endpoint of this member as it is configured now.
func (t *Transport) ownEndpoint() (own *statev1.MemberEndpoint, doubt string, err error) {
	if t.Endpoint == nil {
		return &statev1.MemberEndpoint{}, "", nil
	}
	return t.Endpoint()
}

// webRoots returns the web roots that this cluster offers, and what another cluster may not be able to verify.
func (m *Agreements) webRoots(ctx context.Context) (roots []byte, doubts []string, err error) {
	if doubts, err = m.config.storeEndpoint(ctx); err != nil {
		return nil, nil, err
	}
	return m.config.announcedRoots(m.config.memberEndpoints()), doubts, nil
}

// memberEndpoints returns the rows of the present members, in the order of their IDs.
func (c *Config) memberEndpoints() (out []*statev1.MemberEndpoint) {
	rows, err := endpoints.List(c.Store.View(), "")
	if err != nil {
		c.Log.Error("the endpoints of the members cannot be read; what this cluster announces lacks them", "error", err)
		return nil
	}
	for _, row := range rows {
		if row.Key == c.Store.MemberID() || c.isMember(row.Key) {
			out = append(out, row.Value)
		}
	}
	return out
}

func (c *Config) isMember(id string) bool {
	return slices.ContainsFunc(c.Transport.Members(), func(m Member) bool { return m.ID == id })
}

// announcedRoots returns the roots by which the endpoints of all members are verified.
func (c *Config) announcedRoots(of []*statev1.MemberEndpoint) []byte {
	var lists [][]byte
	for _, e := range of {
		lists = append(lists, e.GetWebRoots())
	}
	return relationship.MergeWebRoots(lists, c.Now())
}

// endpointAddresses returns where other clusters find the bundles of this cluster: at the addresses that the members'
// configurations name, else at those that an operator gave, else at each member.
func (c *Config) endpointAddresses(of []*statev1.MemberEndpoint, advertised []string) []string {
	var named, served []string
	for _, e := range of {
		named = append(named, e.GetAdvertised()...)
		if e.GetAddress() != "" {
			served = append(served, e.GetAddress())
		}
	}
	switch {
	case len(named) > 0:
		return distinct(named, relationship.MaxEndpoints)
	case len(advertised) > 0:
		return distinct(c.Transport.atEndpoint(advertised), relationship.MaxEndpoints)
	case len(served) > 0:
		return distinct(served, relationship.MaxEndpoints)
	}
	return distinct(c.Transport.atEndpoint(c.ownAddresses()), relationship.MaxEndpoints) // no row is written yet
}

// atEndpoint returns the addresses of the endpoints of members, which are taken to have the port of this member's.
func (t *Transport) atEndpoint(members []string) (out []string) {
	for _, address := range members {
		if host, _, err := net.SplitHostPort(address); err == nil {
			out = append(out, net.JoinHostPort(host, t.EndpointPort))
		}
	}
	return out
}

// distinct returns the first addresses of a list, each once.
func distinct(addresses []string, limit int) (out []string) {
	for _, address := range addresses {
		if len(out) < limit && !slices.Contains(out, address) {
			out = append(out, address)
		}
	}
	return out
}
