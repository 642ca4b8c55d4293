package disk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

var recoveredKey = []byte("entente.recovered")

// Recover continues the log of a member that does not run with a configuration and an entry. Everything that the log
// has becomes committed by that: the member must publish nothing before it has applied all of it. It returns the index
// of the entry.
//
// raft.RecoverCluster puts a snapshot of everything in the place of the log, and replaces that in several steps. One
// transaction that appends to the log needs less, cannot be interrupted, and keeps what was there.
func (s *Store) Recover(configuration raft.Configuration, entry []byte) (index uint64, err error) {
	if s.file == nil {
		return 0, errors.New("a store in memory cannot be recovered")
	}
	last, err := s.LastIndex()
	if err != nil {
		return 0, err
	}
	term, err := s.latestTerm(last)
	if err != nil {
		return 0, err
	}
	// A term of its own: no entry of the others has this index and this term.
	term++
	index = last + 2
	err = s.file.Append([]*raft.Log{
		{Index: last + 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(configuration)},
		{Index: index, Term: term, Type: raft.LogCommand, Data: entry},
	}, map[string][]byte{
		"CurrentTerm":        binary.BigEndian.AppendUint64(nil, term), // Raft's name
		string(recoveredKey): binary.BigEndian.AppendUint64(nil, index),
	})
	return index, err
}

// latestTerm returns the highest term that the member has seen.
func (s *Store) latestTerm(last uint64) (uint64, error) {
	term, err := s.file.GetUint64([]byte("CurrentTerm"))
	if err != nil && err.Error() != "not found" {
		return 0, err
	}
	var l raft.Log
	switch err := s.file.GetLog(last, &l); {
	case err == nil:
		term = max(term, l.Term)
	case !errors.Is(err, raft.ErrLogNotFound):
		return 0, err
	}
	snapshots, err := s.Snapshots.List()
	if err != nil {
		return 0, err
	}
	for _, meta := range snapshots {
		term = max(term, meta.Term)
	}
	return term, nil
}

// coverRecovery lets the applied revision cover a recovery.
func (s *Store) coverRecovery() error {
	raw, err := s.file.Get(recoveredKey)
	switch {
	case err != nil && err.Error() == "not found":
		return nil
	case err != nil:
		return err
	case len(raw) != 8:
		return fmt.Errorf("the index of the last recovery has %d bytes, want 8: the log is %w", len(raw), ErrDamaged)
	}
	s.Applied.Cover(binary.BigEndian.Uint64(raw))
	return nil
}
