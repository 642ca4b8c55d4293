package membership

import (
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

func majority(voters int) int { return voters/2 + 1 }

// marks returns which members are to be marked alive and which no longer, given those that are marked now. Right after
// the lead began none is unmarked, because no member had the time to send a heartbeat.
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
