package raftstore

import (
	"iter"

	"github.com/ententehq/entente/raftstore/internal/machine"
)

// Reader is what a [Table] reads from: a [View], or a [Tx], which records what was read.
type Reader interface {
	// Revision is that of the state that is read.
	Revision() Revision

	row(table, key string) (*machine.Row, bool)
	rows(table, prefix string) iter.Seq[*machine.Row]
	prefixRevision(table, prefix string) Revision
}

// View is the state of the store at one revision. It never changes, costs only the memory that it keeps, and can be
// used from many goroutines.
type View struct {
	state *machine.State
	seen  *tablesSeen // records the tables that are read; nil: nothing does
}

// Revision returns the Raft index of the last entry that the view holds.
func (v *View) Revision() Revision { return Revision(v.state.Revision) }

// ClusterID returns the identity of the cluster, which its first leader generated. It is empty before that.
func (v *View) ClusterID() string { return v.state.ClusterID }

func (v *View) row(table, key string) (*machine.Row, bool) {
	v.seen.record(table)
	return v.state.Get(table, key)
}

func (v *View) rows(table, prefix string) iter.Seq[*machine.Row] {
	v.seen.record(table)
	return v.state.Below(table, prefix)
}

func (v *View) prefixRevision(table, prefix string) Revision {
	v.seen.record(table)
	return v.state.PrefixRevision(table, prefix)
}
