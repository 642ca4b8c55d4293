package raftstore

// Staged counts the rows of restores that have not ended.
func Staged(s *Store) int {
	now := s.fsm.state()
	return int(count(now.entries(stagedTable)) + count(now.entries(carriedTable)))
}
