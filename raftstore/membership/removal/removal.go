// Package removal keeps which members were removed from the cluster, and decides what proves that to the member itself.
//
// The removal of a member begins with a mark in its row. A member that runs applies the mark, reports that to the
// leader, and stops; the leader then removes it from the Raft configuration, deletes its row, and writes the row of the
// removal. A member that was down meanwhile is refused by the others when it returns. Each of them that has the row
// answers so under entente-join/1. What one member answers proves nothing: its key may be stolen. The returned member
// stops once a majority of those with a vote, by its own configuration, has answered so.
package removal

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// maxRemovals bounds the rows of removals. The oldest is deleted for another one.
const maxRemovals = 256

// Removals has a row for each identity key whose member was removed.
var Removals = raftstore.NewTable[*statev1.RemovedMember]("removed_members", raftstore.RecordsNow)

// Record writes the row of a removal.
func Record(tx *raftstore.Tx, id string, identity memberid.Digest, now time.Time) error {
	rows, err := Removals.List(tx, "")
	if err != nil {
		return err
	}
	if len(rows) >= maxRemovals {
		oldest := rows[0]
		for _, row := range rows[1:] {
			if row.Value.GetTime().AsTime().Before(oldest.Value.GetTime().AsTime()) {
				oldest = row
			}
		}
		if err := Removals.Delete(tx, oldest.Key); err != nil {
			return err
		}
	}
	return Removals.Put(tx, key(identity), &statev1.RemovedMember{Id: id, Time: timestamppb.New(now)})
}

// Reason returns when the holder of an identity key was removed, in one sentence; false: it was not.
func Reason(r raftstore.Reader, identity memberid.Digest) (string, bool) {
	row, found, err := Removals.Get(r, key(identity))
	if err != nil || !found {
		return "", false
	}
	return fmt.Sprintf("member %s with this identity key was removed at %s", row.Value.GetId(),
		format(row.Value.GetTime())), true
}

// Applied describes the mark in a member's own row.
func Applied(row *statev1.Member) string {
	return "the cluster has committed its removal at " + format(row.GetRemoveTime()) + ", which it has applied"
}

// Proof collects the answers by which a returned member was removed.
type Proof struct{ answers map[string]string }

// Add adds the answer of a member, and reports whether it is the first of that member.
func (p *Proof) Add(id, reason string) bool {
	if p.answers == nil {
		p.answers = map[string]string{}
	}
	_, again := p.answers[id]
	p.answers[id] = reason
	return !again
}

// Judge returns what proves the removal to a member with this configuration, or false while nothing does.
func (p *Proof) Judge(servers []raftstore.Server) (reason string, proved bool) {
	var by []string
	voters := 0
	for _, s := range servers {
		if !s.Voter {
			continue
		}
		voters++
		if answer, ok := p.answers[s.MemberID]; ok {
			by, reason = append(by, s.MemberID), answer
		}
	}
	if len(by) <= voters/2 {
		return "", false
	}
	return reason + "; " + strings.Join(by, " and ") + " answer so, a majority of the members with a vote", true
}

func key(identity memberid.Digest) string { return hex.EncodeToString(identity[:]) }

func format(t *timestamppb.Timestamp) string { return t.AsTime().UTC().Format(time.RFC3339) }
