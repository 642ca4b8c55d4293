package machine

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// drawEntry draws an entry of one command: a transaction, or a step of a restore.
func drawEntry(t *rapid.T, index, counter uint64) *raft.Log {
	c := &statev1.Command{Id: &statev1.CommandID{
		Member: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "member"), Incarnation: 1, Counter: counter,
	}}
	if rapid.Bool().Draw(t, "settles") {
		c.Settled = counter / 2
	}
	table := rapid.SampledFrom([]string{"t", "u"}).Draw(t, "table")
	key := fmt.Sprint(rapid.IntRange(0, 4).Draw(t, "key"))
	value := rapid.SampledFrom([][]byte{nil, {}, []byte("v"), []byte("w")}).Draw(t, "value")
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0, 1:
		chunk := &statev1.RestoreChunk{
			Generation: "g", Attempt: uint64(rapid.IntRange(0, 1).Draw(t, "attempt")),
			Sequence: uint64(rapid.IntRange(0, 1).Draw(t, "sequence")),
		}
		if value != nil || chunk.GetAttempt() > 0 {
			chunk.Rows = []*statev1.StagedRow{{Table: table, Key: key, Value: value}}
		}
		c.Kind = &statev1.Command_RestoreChunk{RestoreChunk: chunk}
	case 2:
		c.Kind = &statev1.Command_RestoreSwap{RestoreSwap: &statev1.RestoreSwap{
			Generation: "g", Chunks: 1, Attempt: uint64(rapid.IntRange(0, 1).Draw(t, "swapped")), CarriedChunks: 1,
			ClusterId: "here",
		}}
	case 3:
		c.Kind = &statev1.Command_RestoreAbort{RestoreAbort: &statev1.RestoreAbort{Generation: "g"}}
	default:
		c.Kind = &statev1.Command_Transaction{Transaction: &statev1.Transaction{
			Changes: []*statev1.RowChange{{Table: table, Key: key, Value: value}},
		}}
	}
	raw, err := proto.Marshal(&statev1.Entry{Version: 1, ClusterId: "here", Commands: []*statev1.Command{c}})
	require.NoError(t, err)
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: raw}
}

// TestDigest applies the same entries to two machines, to one of them in batches and over a snapshot. Their digests are
// equal at every checkpoint and at the end, and are those of what is stored.
func TestDigest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fail := func(err error) { t.Fatal(err) }
		one, other := New(fail, func() {}), New(fail, func() {})
		var logs []*raft.Log
		var index uint64
		for i := range rapid.IntRange(1, 40).Draw(t, "entries") {
			index += uint64(rapid.IntRange(1, 500).Draw(t, "step"))
			logs = append(logs, drawEntry(t, index, uint64(i+1)))
		}
		for _, l := range logs {
			one.Apply(l)
		}
		for rest := logs; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "batch")
			other.ApplyBatch(rest[:n])
			rest = rest[n:]
		}
		require.Equal(t, one.Checkpoints(), other.Checkpoints())
		require.Equal(t, one.State().Digest(), other.State().Digest())
		require.NoError(t, one.State().Verify())

		var snapshot bytes.Buffer
		require.NoError(t, one.State().write(&snapshot))
		restored := New(fail, func() {})
		require.NoError(t, restored.Restore(io.NopCloser(&snapshot)))
		require.Equal(t, one.State().Digest(), restored.State().Digest())
		require.NoError(t, restored.State().Verify())
	})
}

// TestDigestCoversEverything changes each part of a state by itself.
func TestDigestCoversEverything(t *testing.T) {
	m := New(func(err error) { t.Fatal(err) }, func() {})
	apply := func(index uint64, commands ...*statev1.Command) *State {
		raw, err := proto.Marshal(&statev1.Entry{Version: 1, ClusterId: "here", Commands: commands})
		require.NoError(t, err)
		m.Apply(&raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: raw})
		return m.State()
	}
	id := &statev1.CommandID{Member: "a", Incarnation: 1, Counter: 1}
	before := apply(1, &statev1.Command{Id: id, Kind: &statev1.Command_Transaction{Transaction: &statev1.Transaction{
		Changes: []*statev1.RowChange{{Table: "t", Key: "k", Value: []byte("v")}},
	}}})
	digest := before.Digest()
	for name, change := range map[string]func(s *State){
		"cluster":  func(s *State) { s.ClusterID = "there" },
		"revision": func(s *State) { s.Revision++ },
		"floors":   func(s *State) { s.floors = map[string]uint64{"t": 1} },
		"outcomes": func(s *State) {
			a := s.sessions["a"].clone()
			a.outcomes[1] = Outcome{Revision: 1}
			s.sessions = map[string]*session{"a": a}
		},
		"settled": func(s *State) {
			a := s.sessions["a"].clone()
			a.floor++
			s.sessions = map[string]*session{"a": a}
		},
		"staging": func(s *State) { s.Staging = &statev1.Staging{Generation: "g", Chunks: 1} },
		"rows":    func(s *State) { s.sums.of(rowsTable).add(&Row{Table: "t", Key: "l", Value: []byte{}}) },
		"deletions": func(s *State) {
			s.sums.of(tombstonesTable).add(&Row{Table: "t", Key: "l", Revision: 1})
		},
		"staged rows":  func(s *State) { s.sums.of(stagedTable).add(&Row{Table: "t", Key: "l", Value: []byte{}}) },
		"carried rows": func(s *State) { s.sums.of(carriedTable).add(&Row{Table: "t", Key: "l"}) },
	} {
		changed := *before
		change(&changed)
		require.NotEqual(t, digest, changed.Digest(), name)
	}
	// A bit of a row that changes in memory.
	r, ok := before.Get("t", "k")
	require.True(t, ok)
	r.Value[0] ^= 4
	require.ErrorContains(t, before.Verify(), "the digest of the rows at revision 1 is")
	apply(2, &statev1.Command{
		Id: &statev1.CommandID{Member: "a", Incarnation: 1, Counter: 2},
		Kind: &statev1.Command_Transaction{Transaction: &statev1.Transaction{
			Changes: []*statev1.RowChange{{Table: "t", Key: "k", Value: []byte("v")}},
		}},
	})
	require.Error(t, m.State().Verify(), "it leaves a difference behind, also when the row is replaced")
}

func TestSeal(t *testing.T) {
	command, err := proto.Marshal(&statev1.Command{Id: &statev1.CommandID{Member: "a", Incarnation: 1, Counter: 1}})
	require.NoError(t, err)
	sealed := Seal(bytes.Clone(command))
	entry := func(version byte, command []byte) []byte {
		return append([]byte{8, version, 26, byte(len(command))}, command...)
	}
	for _, version := range []byte{1, 2} {
		e, err := decodeEntry(entry(version, sealed))
		require.NoError(t, err)
		require.Equal(t, uint64(1), e.GetCommands()[0].GetId().GetCounter())
	}
	_, err = decodeEntry(entry(1, command))
	require.NoError(t, err, "of a member that does not add checksums yet")
	_, err = decodeEntry(entry(2, command))
	require.EqualError(t, err, "has a command without a checksum, and version 2 requires one")
	for bit := range 8 * len(sealed) {
		damaged := bytes.Clone(sealed)
		damaged[bit/8] ^= 1 << (bit % 8)
		_, err := decodeEntry(entry(2, damaged))
		require.Error(t, err, "bit %d", bit)
	}
	sealed[4] ^= 1
	_, err = decodeEntry(entry(1, sealed))
	require.EqualError(t, err, "has a command that does not match its checksum: it was damaged after it was proposed")
}
