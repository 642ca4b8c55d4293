package membership

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/raftstore"
)

// The decisions of this package. They take values and return a value, or a refusal that is a gRPC status.

// removable decides whether the leader may remove a member from the Raft configuration. reachable reports whether the
// leader receives heartbeats from a member.
func removable(servers []raftstore.Server, reachable func(id string) bool, target string) error {
	var voters, remaining int
	var silent []string
	isVoter := false
	for _, s := range servers {
		switch {
		case !s.Voter:
		case s.MemberID == target:
			isVoter = true
		default:
			voters++
			if reachable(s.MemberID) {
				remaining++
			} else {
				silent = append(silent, s.MemberID)
			}
		}
	}
	switch {
	case !isVoter:
		return nil
	case voters == 0:
		return status.Errorf(codes.FailedPrecondition,
			"member %s is the last one with a vote; without it there is no cluster. "+
				"To end the cluster, stop the member and delete its data folder", target)
	case remaining < majority(voters):
		return status.Errorf(codes.FailedPrecondition,
			"without member %s only %d of %d members with a vote are reachable, no majority; remove or repair %v first",
			target, remaining, voters, silent)
	}
	return nil
}

// repairable decides whether the leader may remove the vote of a member and have it rebuilt from the others.
func repairable(servers []raftstore.Server, reachable func(id string) bool, target string) error {
	known, others := false, 0
	for _, s := range servers {
		switch {
		case s.MemberID == target:
			known = true
		case s.Voter:
			others++
		}
	}
	switch {
	case !known:
		return status.Errorf(codes.NotFound, "the cluster has no member %s; see `entente cluster members`", target)
	case others == 0:
		return status.Errorf(codes.FailedPrecondition,
			"member %s is the only one with a vote: there is no other to rebuild it from. Restore a snapshot into a "+
				"new cluster", target)
	}
	return removable(servers, reachable, target)
}

func majority(voters int) int { return voters/2 + 1 }

// marks returns which members are to be marked alive and which no longer, given those that are marked now. Right after
// leadership began none is unmarked, because no member had the time to send a heartbeat.
func marks(members, marked []string, reachable func(id string) bool, settled bool) (on, off []string) {
	for _, id := range members {
		if reachable(id) && !slices.Contains(marked, id) {
			on = append(on, id)
		}
	}
	for _, id := range marked {
		if !slices.Contains(members, id) || settled && !reachable(id) {
			off = append(off, id)
		}
	}
	return on, off
}

// silentAfter is how long a member can be silent before a listing shows it as not alive: two lost heartbeats. Others
// take over what it does later, after [Config.AliveTimeout].
const silentAfter = 3 * time.Second

// lastHeard returns when a member was last heard, at the latest, by the leader: received is its last heartbeat in this
// term, before what the leader noticed of it earlier, recorded what is in its row. All are zero if there is none. A
// member that is marked alive was heard by the leader before, which led until leading.
func lastHeard(received, before, recorded, leading time.Time, marked bool) time.Time {
	switch {
	case !received.IsZero():
		return received
	case !before.IsZero() && marked:
		return before
	case marked:
		return leading
	}
	return recorded
}

// maxClockDistance is the distance beyond which a member neither signs nor ends another's authority.
const maxClockDistance = 5 * time.Minute

// clockDistance returns the smallest distance from the clock of one member within which a majority of all voters'
// clocks lies, its own included. offsets are those of the members that send heartbeats, against any one clock. Without
// a majority there is no result.
func clockDistance(offsets map[string]time.Duration, of string, voters int) (time.Duration, bool) {
	own, ok := offsets[of]
	if !ok || len(offsets) < majority(voters) {
		return 0, false
	}
	distances := make([]time.Duration, 0, len(offsets))
	for _, o := range offsets {
		distances = append(distances, (o - own).Abs())
	}
	slices.Sort(distances) // the first is its own: 0
	return distances[majority(voters)-1], true
}

// Owner returns which of the members does the work named by key, by rendezvous hash: when a member is added or removed,
// only its own keys move. It returns the empty string if there are no members.
func Owner(key string, members []string) string {
	var owner string
	var highest uint64
	for _, m := range members {
		if w := weight(key, m); owner == "" || w > highest || w == highest && m < owner {
			owner, highest = m, w
		}
	}
	return owner
}

// weight is a cryptographic hash, because outsiders may choose keys: they must not be able to direct work to one
// member.
func weight(key, member string) uint64 {
	h := sha256.New()
	_, _ = io.WriteString(h, member) // a hash never fails
	_, _ = h.Write([]byte{0})        // as above
	_, _ = io.WriteString(h, key)    // as above
	return binary.BigEndian.Uint64(h.Sum(nil))
}
