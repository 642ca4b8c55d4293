package machine

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"maps"
	"slices"
)

// CheckpointEvery is how many Raft indexes lie between two checkpoints, at which members compare their states, unless
// [Machine.CheckpointEach] sets another number.
const CheckpointEvery = 1024

// DigestFormat is the version of what a digest covers. Digests of different formats are not compared.
const DigestFormat = 1

// keptCheckpoints is how many checkpoints are remembered: members that lag by some thousand entries are compared too.
const keptCheckpoints = 4

// Checkpoint is the digest of the state after all entries up to an index.
type Checkpoint struct {
	Index uint64
	Sum   [sha256.Size]byte
}

// sum is the digest of a set of rows: the sum, in four lanes modulo 2^64, of the SHA-256 of each row. It does not
// depend on the order, and is updated with one hash for each row that comes or goes, whatever the size of the table.
// Rows are hashed as they are stored, when they go too: a row that has changed in memory leaves a difference behind.
// The sum finds faults; somebody who chooses rows could find others with the same sum, but a member that lies can send
// any digest anyway.
type sum [4]uint64

func (s *sum) add(r *Row) {
	for i, lane := range lanes(r) {
		s[i] += lane
	}
}

func (s *sum) remove(r *Row) {
	for i, lane := range lanes(r) {
		s[i] -= lane
	}
}

func lanes(r *Row) (lanes sum) {
	b := make([]byte, 0, 40+len(r.Table)+len(r.Key)+len(r.Value))
	b = appendText(b, r.Table)
	b = appendText(b, r.Key)
	b = binary.BigEndian.AppendUint64(b, r.Revision)
	if r.Value != nil { // a tombstone has none, nor has a carried row that is deleted
		b = append(b, 1)
		b = append(b, r.Value...)
	}
	digest := sha256.Sum256(b)
	for i := range lanes {
		lanes[i] = binary.BigEndian.Uint64(digest[8*i:])
	}
	return lanes
}

func appendText(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint64(b, uint64(len(text))), text...)
}

// memtables lists the tables of the in-memory database, in the order of State.sums.
var memtables = [...]string{rowsTable, tombstonesTable, stagedTable, carriedTable}

type sums [len(memtables)]sum

// of returns the sum of a table.
func (s *sums) of(memtable string) *sum { return &s[slices.Index(memtables[:], memtable)] }

// Digest returns the digest of everything that is replicated. The sums of the rows are kept up to date; what else there
// is, which is little, is hashed now.
func (s *State) Digest() (digest [sha256.Size]byte) {
	h := digester{sha256.New()}
	h.text(s.ClusterID)
	h.numbers(DigestFormat, s.Revision, s.Term, uint64(s.tombstones))
	for _, sum := range s.sums {
		h.numbers(sum[:]...)
	}
	h.numbers(uint64(len(s.floors)))
	for _, table := range slices.Sorted(maps.Keys(s.floors)) {
		h.text(table)
		h.numbers(s.floors[table])
	}
	h.numbers(uint64(len(s.sessions)))
	for _, member := range slices.Sorted(maps.Keys(s.sessions)) {
		h.text(member)
		h.session(s.sessions[member])
	}
	h.text(s.Staging.GetGeneration())
	h.numbers(s.Staging.GetChunks(), s.Staging.GetAttempt(), s.Staging.GetCarriedChunks())
	h.Sum(digest[:0])
	return digest
}

type digester struct{ hash.Hash }

func (h digester) text(text string) { h.Write(appendText(nil, text)) } // a hash never fails

func (h digester) numbers(numbers ...uint64) {
	b := make([]byte, 0, 8*len(numbers))
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	h.Write(b)
}

func (h digester) session(s *session) {
	h.numbers(s.incarnation, s.floor, s.revision, uint64(len(s.outcomes)))
	for _, counter := range slices.Sorted(maps.Keys(s.outcomes)) {
		o := s.outcomes[counter]
		var applied uint64
		if o.Applied {
			applied = 1
		}
		h.numbers(counter, applied, o.Revision)
	}
}

// Verify computes the sums of the rows again, from what is stored, and compares them with those that were kept up to
// date.
func (s *State) Verify() error {
	for i, memtable := range memtables {
		var now sum
		for r := range entries(s.txn, memtable) {
			now.add(r)
		}
		if now != s.sums[i] {
			return fmt.Errorf("the digest of the %s at revision %d is %x, and was %x when they were written: this "+
				"member's memory has changed by itself", memtable, s.Revision, now, s.sums[i])
		}
	}
	return nil
}

// checkpoint remembers the digest of a state if the next entry lies beyond a checkpoint that the state has not passed.
// What it remembers does not depend on how entries are put together in batches.
func (m *Machine) checkpoint(s *State, next uint64) {
	if next == 0 {
		return
	}
	index := (next - 1) / m.checkpointEvery * m.checkpointEvery
	if index == 0 || s.Revision > index || s.Revision == 0 {
		return
	}
	before := m.Checkpoints()
	if n := len(before); n > 0 && before[n-1].Index >= index {
		return
	}
	latest := append(slices.Clone(before[max(0, len(before)-keptCheckpoints+1):]), Checkpoint{index, s.Digest()})
	m.checkpoints.Store(&latest)
}

// CheckpointEach sets how many Raft indexes lie between two checkpoints. It is called before the first entry.
func (m *Machine) CheckpointEach(entries uint64) { m.checkpointEvery = entries }

// Checkpoints returns the latest checkpoints, oldest first.
func (m *Machine) Checkpoints() []Checkpoint {
	if all := m.checkpoints.Load(); all != nil {
		return *all
	}
	return nil
}
