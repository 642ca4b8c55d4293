package client

import (
	"context"
	"iter"
	"maps"

	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// Node returns the service for agents, which call it for themselves.
func (c *Client) Node() ententev1.NodeServiceClient { return ententev1.NewNodeServiceClient(c.conn) }

// WatchEntries returns all entries of the calling agent by their IDs, and again after each change. The member sends
// differences, of which whole states are made here; each map belongs to the caller, and the entries in it are shared.
// members is called with the members at first and whenever they have changed, before the entries of the same message.
// broken is called once an outage with its error, and again with one by which the member refuses the agent.
//
// The sequence ends with the error of ctx when that ends. It can be used once.
func (c *Client) WatchEntries(
	ctx context.Context, members func([]*ententev1.AgentServer), broken func(error),
) iter.Seq2[map[string]*ententev1.Entry, error] {
	return func(yield func(map[string]*ententev1.Entry, error) bool) {
		state := map[string]*ententev1.Entry{}
		err := watch[ententev1.WatchEntriesResponse]{
			open: func(ctx context.Context) (grpc.ServerStreamingClient[ententev1.WatchEntriesResponse], error) {
				return c.Node().WatchEntries(ctx, &ententev1.WatchEntriesRequest{})
			},
			each: func(m *ententev1.WatchEntriesResponse, first bool) error {
				if servers := m.GetServers(); len(servers) > 0 {
					members(servers)
				}
				if first || m.GetWhole() {
					state = map[string]*ententev1.Entry{}
				}
				for _, e := range m.GetChanged() {
					state[e.GetId()] = e
				}
				for _, id := range m.GetDeleted() {
					delete(state, id)
				}
				if !m.GetMore() && !yield(maps.Clone(state), nil) {
					return errEndOfLoop
				}
				return nil
			},
			broken: func(err error) error { broken(err); return nil },
		}.run(ctx)
		if ctx.Err() != nil {
			yield(nil, err)
		}
	}
}

// WatchDistrusted returns the IDs of the tainted and revoked authorities of all trust domains, whose SVIDs must be
// renewed, and again after each change. broken is called once an outage with its error.
//
// The sequence ends with the error of ctx when that ends. It can be used once.
func (c *Client) WatchDistrusted(ctx context.Context, broken func(error)) iter.Seq2[map[string]bool, error] {
	return func(yield func(map[string]bool, error) bool) {
		err := watch[ententev1.WatchAuthoritiesResponse]{
			open: func(ctx context.Context) (grpc.ServerStreamingClient[ententev1.WatchAuthoritiesResponse], error) {
				return c.SVIDs().WatchAuthorities(ctx, &ententev1.WatchAuthoritiesRequest{})
			},
			each: func(m *ententev1.WatchAuthoritiesResponse, _ bool) error {
				ids := map[string]bool{}
				for _, a := range m.GetDistrusted() {
					ids[a.GetId()] = true
				}
				if !yield(ids, nil) {
					return errEndOfLoop
				}
				return nil
			},
			broken: func(err error) error { broken(err); return nil },
		}.run(ctx)
		if ctx.Err() != nil {
			yield(nil, err)
		}
	}
}
