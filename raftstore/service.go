package raftstore

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/internal/commit"
)

// Service returns the gRPC service that other members send their commands to. It belongs on a listener that admits
// members only, since it trusts what they report to have read.
func (s *Store) Service() ententev1.StoreServiceServer {
	return &service{queue: s.sender.queue, reads: s.reads}
}

type service struct {
	ententev1.UnimplementedStoreServiceServer
	queue *commit.Queue
	reads *reads
}

// Propose implements StoreService.
func (v *service) Propose(ctx context.Context, r *ententev1.ProposeRequest) (*ententev1.ProposeResponse, error) {
	c, err := commit.Decode(r.GetCommand())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	response, err := v.queue.Propose(ctx, c, r.GetCommand(), r)
	if err != nil {
		return nil, StatusError(orStoreClosed(err))
	}
	return response, nil
}

// ReadIndex implements StoreService.
func (v *service) ReadIndex(ctx context.Context, _ *ententev1.ReadIndexRequest) (*ententev1.ReadIndexResponse, error) {
	index, err := v.reads.grant(ctx)
	if err != nil {
		return nil, StatusError(err)
	}
	return &ententev1.ReadIndexResponse{Index: index}, nil
}
