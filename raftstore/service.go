package raftstore

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/internal/commit"
)

// Service returns the gRPC service that other members send their commands to. It belongs on a listener that admits
// members only, since it trusts what they report to have read. caller returns the ID of the member that calls, as the
// connection proves it; commands in the name of another are refused.
func (s *Store) Service(caller func(context.Context) (memberID string, ok bool)) ententev1.StoreServiceServer {
	return &service{queue: s.sender.queue, reads: s.reads, caller: caller}
}

type service struct {
	ententev1.UnimplementedStoreServiceServer
	queue  *commit.Queue
	reads  *reads
	caller func(context.Context) (memberID string, ok bool)
}

// Propose implements StoreService.
func (v *service) Propose(ctx context.Context, r *ententev1.ProposeRequest) (*ententev1.ProposeResponse, error) {
	c, err := commit.Decode(r.GetCommand())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	member, ok := v.caller(ctx)
	if !ok {
		return nil, status.Error(codes.PermissionDenied,
			"only members of the cluster send commands, with their identity keys")
	}
	if err := ownName(c, member); err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	response, err := v.queue.Propose(ctx, c, r.GetCommand(), r)
	if err != nil {
		return nil, StatusError(orStoreClosed(err))
	}
	return response, nil
}

// ownName returns an error if a command is in the name of another member than the one that sent it: by its ID, under
// which its outcome is kept, or by the rows that it writes or stages for a restore.
func ownName(c *statev1.Command, member string) error {
	if by := memberOf(c.GetId().GetMember()); by != member {
		return fmt.Errorf("member %s sent a command in the name of member %.80q", member, by)
	}
	for _, change := range c.GetTransaction().GetChanges() {
		if by, own := writtenBy(change.GetTable(), change.Value, member); !own {
			return fmt.Errorf("member %s sent a row of %s in the name of member %.80q", member, change.GetTable(), by)
		}
	}
	for _, row := range c.GetRestoreChunk().GetRows() {
		if by, own := writtenBy(row.GetTable(), row.Value, member); !own {
			return fmt.Errorf("member %s restores a row of %s in the name of member %.80q: if its version is older "+
				"than the leader's, upgrade it, or restore the snapshot on the leader", member, row.GetTable(), by)
		}
	}
	return nil
}

// writtenBy returns which member wrote a row, and whether that is the given one. The deletion of a row, and a row of a
// table whose rows name no writer, are everybody's.
func writtenBy(table string, value []byte, member string) (by string, own bool) {
	w, named := writersOf(table)
	if !named || value == nil {
		return member, true
	}
	by, err := w.of(value)
	return by, err == nil && by == member
}

// ReadIndex implements StoreService.
func (v *service) ReadIndex(ctx context.Context, _ *ententev1.ReadIndexRequest) (*ententev1.ReadIndexResponse, error) {
	index, err := v.reads.grant(ctx)
	if err != nil {
		return nil, StatusError(err)
	}
	return &ententev1.ReadIndexResponse{Index: index}, nil
}
