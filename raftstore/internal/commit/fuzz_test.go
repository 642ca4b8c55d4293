package commit

import (
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/machine"
)

// FuzzCommand checks that whatever another member sends is refused, or is applied without harm and has the same outcome
// when it arrives again.
func FuzzCommand(f *testing.F) {
	for _, c := range []*statev1.Command{
		{},
		{Id: &statev1.CommandID{Member: "m", Incarnation: 1, Counter: 1},
			Kind: &statev1.Command_Transaction{Transaction: &statev1.Transaction{
				Base:     3,
				Rows:     []*statev1.RowCondition{{Table: "t", Key: "k", Revision: 3}},
				Prefixes: []*statev1.PrefixCondition{{Table: "t", Prefix: "k"}},
				Changes:  []*statev1.RowChange{{Table: "t", Key: "k", Value: []byte("v")}, {Table: "t", Key: "l"}},
			}}},
		{Id: &statev1.CommandID{Member: "m", Incarnation: 2, Counter: 9}, Settled: 8,
			Kind: &statev1.Command_RestoreChunk{RestoreChunk: &statev1.RestoreChunk{
				Generation: "g", Rows: []*statev1.StagedRow{{Table: "t", Key: "k", Value: []byte("v")}},
			}}},
		{
			Id:   &statev1.CommandID{Member: "m", Incarnation: 2, Counter: 10},
			Kind: &statev1.Command_RestoreSwap{RestoreSwap: &statev1.RestoreSwap{Generation: "g", Chunks: 1}},
		},
		{
			Id:   &statev1.CommandID{Member: "m", Incarnation: 2, Counter: 11},
			Kind: &statev1.Command_RestoreAbort{RestoreAbort: &statev1.RestoreAbort{Generation: "g"}},
		},
	} {
		raw, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		f.Add(machine.Seal(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := Decode(raw); err != nil {
			return
		}
		store := machine.New(func(err error) { t.Fatalf("an accepted command stops the member: %v", err) }, func() {})
		data := encodeEntry([]*proposal{{raw: raw}}, machine.CommandVersion)
		apply := func(index uint64) machine.Outcome {
			log := &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: data}
			return store.Apply(log).([]machine.Outcome)[0]
		}
		if first, again := apply(5), apply(6); first != again {
			t.Fatalf("applied again: %v, at first %v", again, first)
		}
	})
}
