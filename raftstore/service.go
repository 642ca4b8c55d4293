package raftstore

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// Service returns the gRPC service that fellow members send their commands to. It belongs on a listener that admits members
// alone, since it takes their word for what they have read.
func (s *Store) Service() ententev1.StoreServiceServer { return &service{store: s} }

type service struct {
	ententev1.UnimplementedStoreServiceServer
	store *Store
}

// Propose is part of StoreService.
func (v *service) Propose(ctx context.Context, r *ententev1.ProposeRequest) (*ententev1.ProposeResponse, error) {
	c, err := decodeCommand(r.GetCommand())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	response, err := v.store.propose(ctx, c, r)
	if err != nil {
		return nil, StatusError(err)
	}
	return response, nil
}

// ReadIndex is part of StoreService.
func (v *service) ReadIndex(ctx context.Context, _ *ententev1.ReadIndexRequest) (*ententev1.ReadIndexResponse, error) {
	index, err := v.store.ownReadIndex(ctx)
	if err != nil {
		return nil, StatusError(err)
	}
	return &ententev1.ReadIndexResponse{Index: index}, nil
}

// decodeCommand reads a command of another member, and refuses one that Apply could not make sense of.
func decodeCommand(raw []byte) (*statev1.Command, error) {
	if len(raw) > maxCommand {
		return nil, errors.New("the command is larger than 512 KiB")
	}
	c := &statev1.Command{}
	if err := proto.Unmarshal(raw, c); err != nil {
		return nil, errors.New("the command does not decode")
	}
	return c, checkCommand(c)
}

// checkCommand refuses a command that breaks a rule that every member's own commands keep.
func checkCommand(c *statev1.Command) error {
	id := c.GetId()
	switch {
	case len(id.GetMember()) > maxTableName+maxKey:
		return errors.New("the command's member ID is too long")
	case id.GetMember() == "" || id.GetIncarnation() == 0 || id.GetCounter() == 0:
		return errors.New("the command has no ID")
	case c.GetSettled() > id.GetCounter():
		return errors.New("the command settles commands that come after it")
	case c.GetKind() == nil:
		return errors.New("the command is of a kind that this version does not know")
	}
	t := c.GetTransaction()
	for _, condition := range t.GetRows() {
		if err := checkRow(condition.GetTable(), condition.GetKey()); err != nil {
			return err
		}
	}
	for _, condition := range t.GetPrefixes() {
		if err := checkTableName(condition.GetTable()); err != nil {
			return err
		}
	}
	for _, change := range t.GetChanges() {
		if err := checkRow(change.GetTable(), change.GetKey()); err != nil {
			return err
		}
	}
	for _, row := range c.GetRestoreChunk().GetRows() {
		if err := checkRow(row.GetTable(), row.GetKey()); err != nil {
			return err
		}
	}
	return nil
}

func checkRow(table, key string) error {
	if err := checkTableName(table); err != nil {
		return err
	}
	return checkKey(key)
}
