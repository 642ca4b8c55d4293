package raftstore

import "iter"

// Reader is what a [Table] reads from: a [View], or a [Tx], which records what was read.
type Reader interface {
	// Revision is that of the state that is read.
	Revision() Revision

	row(table, key string) (*entry, bool)
	rows(table, prefix string) iter.Seq[*entry]
	prefixRevision(table, prefix string) Revision
}

// View is the state of the store at one revision. It never changes, costs nothing to keep but memory, and can be used from
// many goroutines.
type View struct {
	state *state
	seen  *tablesSeen // notes what is read; nil: nobody asks
}

// Revision returns the Raft index of the last entry that the view holds.
func (v *View) Revision() Revision { return Revision(v.state.revision) }

// ClusterID returns the identity of the cluster, which its first leader drew; empty before that.
func (v *View) ClusterID() string { return v.state.clusterID }

func (v *View) row(table, key string) (*entry, bool) {
	v.seen.note(table)
	return v.state.contents().get(table, key)
}

func (v *View) rows(table, prefix string) iter.Seq[*entry] {
	v.seen.note(table)
	return v.state.contents().below(rowsTable, table, prefix)
}

func (v *View) prefixRevision(table, prefix string) Revision {
	v.seen.note(table)
	return v.state.prefixRevision(table, prefix)
}
