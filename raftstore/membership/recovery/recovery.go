// Package recovery keeps which members the cluster was recovered without, after a majority of its disks was lost.
//
// The row of a recovery is written into the log of a stopped member, together with the configuration that makes a
// cluster of it. The member completes the recovery when it starts, before it serves anything. The row stays: it is how
// an abandoned member that comes back is told why it cannot return.
package recovery

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// Recoveries has a row for each recovery of the cluster.
var Recoveries = raftstore.NewTable[*statev1.Recovery]("recoveries", raftstore.RecordsNow)

// Begin writes the row of a recovery.
func Begin(tx *raftstore.Tx, r *statev1.Recovery) error {
	return Recoveries.Put(tx, fmt.Sprintf("%020d", r.GetLastIndex()), r)
}

// Pending returns the recovery that is not completed, or nil. If a recovery was repeated before the member was started,
// it is the last one.
func Pending(r raftstore.Reader) (*statev1.Recovery, error) {
	rows, err := Recoveries.List(r, "")
	if err != nil {
		return nil, err
	}
	for i := len(rows) - 1; i >= 0; i-- {
		if rows[i].Value.GetCompleteTime() == nil {
			return rows[i].Value, nil
		}
	}
	return nil, nil
}

// Complete marks every recovery as completed.
func Complete(tx *raftstore.Tx, now time.Time) error {
	rows, err := Recoveries.List(tx, "")
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.Value.GetCompleteTime() != nil {
			continue
		}
		row.Value.CompleteTime = timestamppb.New(now)
		if err := Recoveries.Put(tx, row.Key, row.Value); err != nil {
			return err
		}
	}
	return nil
}

// Abandoned returns the recovery without the holder of an identity key, or nil.
func Abandoned(r raftstore.Reader, identity memberid.Digest) (*statev1.Recovery, error) {
	rows, err := Recoveries.List(r, "")
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		for _, m := range row.Value.GetAbandoned() {
			if string(m.GetIdentity()) == string(identity[:]) {
				return row.Value, nil
			}
		}
	}
	return nil, nil
}

// Reason describes a recovery to a member that it abandoned.
func Reason(r *statev1.Recovery) string {
	return fmt.Sprintf("its data folder belongs to an abandoned history: at %s the cluster was recovered from member "+
		"%s, with what that one had, up to index %d", r.GetTime().AsTime().UTC().Format(time.RFC3339), r.GetMemberId(),
		r.GetLastIndex())
}
