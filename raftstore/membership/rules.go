package membership

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/token"
)

// The decisions of this package. They take values and return a value, or a refusal that is a gRPC status.

// redeemable decides whether a joiner may come in on a token. row is nil if there is none with the id that
// the joiner named. A token that the same member with the same key has redeemed admits it again, also after
// its expiry: the answer to its first request may have been lost.
func redeemable(row *statev1.JoinToken, secret []byte, id string, identity Digest, now time.Time) error {
	const remedy = "make a new one with `entente cluster join-token`"
	if row == nil || !token.Proves(secret, row.GetSecretSha256()) {
		// One answer for both: it does not tell which ids exist.
		return status.Error(codes.PermissionDenied, "this cluster has no such join token, or it was void after a restore or long expired; "+remedy)
	}
	if r := row.GetRedemption(); r != nil {
		if r.GetMemberId() == id && string(r.GetIdentity()) == string(identity[:]) {
			return nil
		}
		return status.Errorf(codes.PermissionDenied, "the join token was used by member %s at %s, and a token admits one member once; %s",
			r.GetMemberId(), r.GetTime().AsTime().Format(time.RFC3339), remedy)
	}
	if expires := row.GetExpireTime().AsTime(); !now.Before(expires) {
		return status.Errorf(codes.PermissionDenied, "the join token expired at %s; %s", expires.Format(time.RFC3339), remedy)
	}
	return nil
}

// admissible decides whether a joiner's id and key go together with the members that there are. A member
// whose id is taken is never replaced by a joiner: a mistyped id would push a living member out. Whoever
// lost its disk is removed by an operator first, which also retires what it could sign with.
func admissible(rows []raftstore.Row[*statev1.Member], id string, identity Digest) error {
	if len(rows) >= maxFellows && !slices.ContainsFunc(rows, func(r raftstore.Row[*statev1.Member]) bool { return r.Key == id }) {
		return status.Errorf(codes.ResourceExhausted, "the cluster has %d members, the most that it can have", len(rows))
	}
	for _, row := range rows {
		same := string(row.Value.GetIdentity()) == string(identity[:])
		switch {
		case row.Key == id && !same:
			return status.Errorf(codes.AlreadyExists, "the cluster has a member %s with another identity key, which joined at %s; the token was not used: "+
				"if that member lost its disk, remove it with `entente cluster remove %s` and start this one again, otherwise give this one another id",
				id, row.Value.GetJoinTime().AsTime().Format(time.RFC3339), id)
		case row.Key != id && same:
			return status.Errorf(codes.AlreadyExists, "the identity key is that of member %s; the token was not used: a data folder belongs to one member, start this one with an empty folder", row.Key)
		}
	}
	return nil
}

// removable decides whether the leader may take a member out of the Raft configuration. heard says whether
// the leader hears from a member.
func removable(servers []raftstore.Server, heard func(id string) bool, target string) error {
	var voters, reachable int
	var silent []string
	isVoter := false
	for _, s := range servers {
		switch {
		case !s.Voter:
		case s.MemberID == target:
			isVoter = true
		default:
			voters++
			if heard(s.MemberID) {
				reachable++
			} else {
				silent = append(silent, s.MemberID)
			}
		}
	}
	switch {
	case !isVoter:
		return nil
	case voters == 0:
		return status.Errorf(codes.FailedPrecondition, "member %s is the last one with a vote; without it there is no cluster. To end the cluster, stop the member and delete its data folder", target)
	case reachable < majority(voters):
		return status.Errorf(codes.FailedPrecondition, "without member %s only %d of %d members with a vote would be heard, no majority; remove or repair %v first", target, reachable, voters, silent)
	}
	return nil
}

func majority(voters int) int { return voters/2 + 1 }

// marks says which members are to be marked alive and which no longer, given who is marked now. Right after
// the lead began nobody is taken off the list, since nobody has had the time to be heard.
func marks(members, marked []string, heard func(id string) bool, settled bool) (on, off []string) {
	for _, id := range members {
		if heard(id) && !slices.Contains(marked, id) {
			on = append(on, id)
		}
	}
	for _, id := range marked {
		if !slices.Contains(members, id) || settled && !heard(id) {
			off = append(off, id)
		}
	}
	return on, off
}

// maxClockDistance is the bound of DESIGN: beyond it a member neither signs nor ends another's authority.
const maxClockDistance = 5 * time.Minute

// clockDistance returns the smallest distance from the clock of one member within which a majority of all
// voters' clocks lies, its own among them. offsets are those of the members that were heard, against any
// one clock. Without a majority nothing is known.
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

// compatible decides whether a joiner's configuration and version fit the cluster.
func compatible(clusterName, homeTrustDomain string, theirs joinFacts, inUse uint32) error {
	switch {
	case theirs.clusterName != clusterName:
		return status.Errorf(codes.FailedPrecondition, "the joiner's configuration says cluster.name = %q, but this cluster is %q; correct the configuration or the join addresses", theirs.clusterName, clusterName)
	case theirs.homeTrustDomain != homeTrustDomain:
		return status.Errorf(codes.FailedPrecondition, "the joiner's configuration says cluster.trust_domain = %q, but this cluster's is %q; correct the configuration", theirs.homeTrustDomain, homeTrustDomain)
	case theirs.commandVersion < inUse:
		return status.Errorf(codes.FailedPrecondition, "the joiner's version %s applies commands up to version %d, but this cluster uses version %d; install a newer one", describe(theirs.version), theirs.commandVersion, inUse)
	}
	return nil
}

type joinFacts struct {
	clusterName, homeTrustDomain, version string
	commandVersion                        uint32
}

func describe(version string) string {
	if version == "" {
		return "(unnamed)"
	}
	return fmt.Sprintf("%.40q", version)
}
