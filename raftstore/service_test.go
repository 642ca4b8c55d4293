package raftstore_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// signed is a table whose rows consist of the name of the member that wrote them.
var signed = raftstore.NewTable[*wrapperspb.StringValue]("test_signed").
	NamesWriter(
		(*wrapperspb.StringValue).GetValue, func(v *wrapperspb.StringValue, member string) { v.Value = member },
	)

// A member sends commands in its own name alone: by their IDs, and by what they write into tables that name the writer.
func TestCommandsInTheNameOfAnotherMember(t *testing.T) {
	s := raftstoretest.New(t)
	const sender = "member-2"
	service := s.Service(func(context.Context) (string, bool) { return sender, true })
	counter := uint64(0)
	propose := func(service ententev1.StoreServiceServer, by string, c *statev1.Command) error {
		counter++
		c.Id = &statev1.CommandID{Member: by, Incarnation: 1, Counter: counter}
		command, err := proto.Marshal(c)
		require.NoError(t, err)
		r, err := service.Propose(t.Context(), &ententev1.ProposeRequest{Command: command})
		if err == nil {
			require.Equal(t, ententev1.ProposeResponse_RESULT_APPLIED, r.GetResult())
		}
		return err
	}
	row := func(table, writer string) *statev1.RowChange {
		value, err := proto.Marshal(wrapperspb.String(writer))
		require.NoError(t, err)
		return &statev1.RowChange{Table: table, Key: "k", Value: value}
	}
	writes := func(changes ...*statev1.RowChange) *statev1.Command {
		return &statev1.Command{Kind: &statev1.Command_Transaction{
			Transaction: &statev1.Transaction{Base: uint64(s.View().Revision()), Changes: changes},
		}}
	}
	generation := 0
	stages := func(attempt uint64, changes ...*statev1.RowChange) *statev1.Command {
		chunk := &statev1.RestoreChunk{Generation: "g", Attempt: attempt}
		if attempt == 0 {
			generation++
		}
		chunk.Generation += fmt.Sprint(generation)
		for _, c := range changes {
			chunk.Rows = append(chunk.Rows, &statev1.StagedRow{Table: c.GetTable(), Key: c.GetKey(), Value: c.Value})
		}
		return &statev1.Command{Kind: &statev1.Command_RestoreChunk{RestoreChunk: chunk}}
	}
	const remedy = ": if its version is older than the leader's, upgrade it, or restore the snapshot on the leader"
	own, others := row(signed.Name(), sender), row(signed.Name(), "member-1")
	damaged := &statev1.RowChange{Table: signed.Name(), Key: "k", Value: []byte{0xff}}
	for _, c := range []struct {
		name    string
		by      string
		command *statev1.Command
		refusal string
	}{
		{name: "in its own name", by: sender, command: writes(own)},
		{name: "the ID of another", by: "member-1", command: writes(own),
			refusal: `member member-2 sent a command in the name of member "member-1"`},
		{name: "a row in the name of another", by: sender, command: writes(own, others),
			refusal: `member member-2 sent a row of test_signed in the name of member "member-1"`},
		{name: "a row without a name", by: sender, command: writes(row(signed.Name(), "")),
			refusal: `member member-2 sent a row of test_signed in the name of member ""`},
		{name: "a row that does not decode", by: sender, command: writes(damaged),
			refusal: `member member-2 sent a row of test_signed in the name of member ""`},
		{name: "a row of another table", by: sender, command: writes(row(words.Name(), "member-1"))},
		{name: "a deletion", by: sender, command: writes(&statev1.RowChange{Table: signed.Name(), Key: "k"})},
		{name: "restored rows", by: sender, command: stages(0, own, row(words.Name(), "member-1"))},
		{name: "a carried row", by: sender, command: stages(1, own)},
		{name: "a carried deletion", by: sender,
			command: stages(2, &statev1.RowChange{Table: signed.Name(), Key: "k"})},
		{name: "a restored row in the name of another", by: sender, command: stages(0, own, others),
			refusal: `member member-2 restores a row of test_signed in the name of member "member-1"` + remedy},
		{name: "a carried row in the name of another", by: sender, command: stages(1, others),
			refusal: `member member-2 restores a row of test_signed in the name of member "member-1"` + remedy},
		{name: "a restored row that does not decode", by: sender, command: stages(0, damaged),
			refusal: `member member-2 restores a row of test_signed in the name of member ""` + remedy},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := s.View().Revision()
			err := propose(service, c.by, c.command)
			if c.refusal == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
			require.Equal(t, c.refusal, status.Convert(err).Message())
			require.Equal(t, before, s.View().Revision())
		})
	}
	nobody := s.Service(func(context.Context) (string, bool) { return "", false })
	err := propose(nobody, sender, writes(own))
	require.EqualError(t, err, "rpc error: code = PermissionDenied desc = only members of the cluster send commands, "+
		"with their identity keys")
}
