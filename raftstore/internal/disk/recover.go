package disk

import (
	"encoding/binary"
	"errors"

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

// appliedKey has the applied revision as it was when the log was written last.
var appliedKey = []byte("entente.applied")

// coverLog lets the record of the applied revision, if there is one, cover what the log has of it: a loss of power can
// have taken what the record had since. A recovery is covered without a record too, as long as nothing was written to
// the log after it.
func (s *Store) coverLog() error {
	published, err := s.number(appliedKey)
	if err != nil {
		return err
	}
	if s.Applied.Last().Known {
		s.Applied.Cover(published)
	}
	recovered, err := s.number(recoveredKey)
	if err != nil {
		return err
	}
	if recovered > published || s.Applied.Last().Known {
		s.Applied.Cover(recovered)
	}
	s.file.Accompany(appliedKey, s.Applied.Revision)
	return nil
}

// number returns a number of the stable store, or 0 if it has none.
func (s *Store) number(key []byte) (uint64, error) {
	n, err := s.file.GetUint64(key)
	if err != nil && err.Error() == "not found" {
		return 0, nil
	}
	return n, err
}
