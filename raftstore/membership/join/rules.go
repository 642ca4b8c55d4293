package join

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// CheckRequest checks the form of a request to join, and returns the digest of the joiner's identity key.
func CheckRequest(req *ententev1.JoinRequest) (memberid.Digest, error) {
	const maxSecret = 64
	if err := errors.Join(
		memberid.CheckID(req.GetId()), memberid.CheckAddress(req.GetAddress()),
		memberid.CheckName("region", req.GetRegion()), memberid.CheckName("zone", req.GetZone()),
		memberid.CheckName("version", req.GetVersion()), memberid.CheckName("cluster name", req.GetClusterName()),
		memberid.CheckName("home trust domain", req.GetHomeTrustDomain()),
	); err != nil {
		return memberid.Digest{}, err
	}
	if !token.IsID(req.GetTokenId()) || len(req.GetTokenSecret()) > maxSecret {
		return memberid.Digest{}, errors.New("the token's id or secret is malformed")
	}
	return memberid.ParseCertificate(req.GetIdentityCertificate())
}

// TokenState is what has become of a token.
type TokenState uint8

// The values of [TokenState].
const (
	Open     TokenState = iota + 1 // it waits for its joiner
	Awaiting                       // its joiner waits for approval, and is no member
	Approved                       // its joiner became a member; the token admits nobody else
)

// StateOf returns what has become of a token. A redeemed token that names no member was written by a version without
// approvals.
func StateOf(t *statev1.JoinToken) TokenState {
	switch {
	case t.GetRedemption() == nil:
		return Open
	case t.GetApproveTime() == nil && t.GetMemberId() != "":
		return Awaiting
	}
	return Approved
}

// Redeemable decides whether a joiner may use a token. row is nil if there is none with the ID that the joiner sent. A
// token that the same member with the same key has redeemed stays usable for it, also after its expiry: the answer to
// its first request may have been lost, or it waits for approval.
func Redeemable(row *statev1.JoinToken, secret []byte, id string, identity memberid.Digest, now time.Time) error {
	remedy := fmt.Sprintf("make a new one with `entente cluster join-token %s`", id)
	if row == nil || !token.Proves(secret, row.GetSecretSha256()) {
		// One answer for all, which does not reveal the IDs that exist.
		return status.Error(codes.PermissionDenied, "this cluster has no such join token: it was revoked, replaced by "+
			"a newer one, void after a restore or the removal of a member, or it expired long ago; "+remedy)
	}
	if r := row.GetRedemption(); r != nil {
		if r.GetMemberId() == id && string(r.GetIdentity()) == string(identity[:]) {
			return nil
		}
		return status.Errorf(codes.PermissionDenied,
			"the join token was used by member %s with identity key %s at %s, and a token admits one member once; %s",
			r.GetMemberId(), shortIdentity(r.GetIdentity()), r.GetTime().AsTime().Format(time.RFC3339), remedy)
	}
	if bound := row.GetMemberId(); bound != id {
		return status.Errorf(codes.PermissionDenied,
			"the join token is for member %q, and this member is %s; correct member.id, or %s", bound, id, remedy)
	}
	if expires := row.GetExpireTime().AsTime(); !now.Before(expires) {
		return status.Errorf(codes.PermissionDenied,
			"the join token expired at %s; %s", expires.Format(time.RFC3339), remedy)
	}
	return nil
}

// MaxAwaiting bounds the joiners that wait for approval at a time: as many as a person can compare, and more than a
// cluster adds at once.
const MaxAwaiting = 10

// RoomToWait decides whether one more joiner may wait for approval besides those with the given IDs. Those that wait
// keep their places: if the oldest gave way, whoever has enough tokens could displace the one that an administrator is
// about to approve. The joiner repeats its request, and its token stays open.
func RoomToWait(awaiting []string) error {
	if len(awaiting) < MaxAwaiting {
		return nil
	}
	return status.Errorf(codes.ResourceExhausted, "%d joiners wait for the approval of an administrator, as many "+
		"as can (%s); the token was not used: approve them with `entente cluster approve`, or reject them with "+
		"`entente cluster join-token revoke`", len(awaiting), strings.Join(awaiting, ", "))
}

// Approvable decides whether an administrator may approve the joiner that redeemed a token. identity is the digest of
// the key that the joiner must have; nil means any key.
func Approvable(redeemed *statev1.JoinToken, identity []byte) error {
	r := redeemed.GetRedemption()
	if len(identity) > 0 && string(identity) != string(r.GetIdentity()) {
		return status.Errorf(codes.FailedPrecondition,
			"the joiner %s at %s has identity key %x, not the one given: it may be another machine than the one "+
				"meant; "+
				"reject it with `entente cluster join-token revoke %s`",
			r.GetMemberId(), r.GetAddress(), r.GetIdentity(), r.GetMemberId())
	}
	return nil
}

// shortIdentity abbreviates a stored digest for messages.
func shortIdentity(digest []byte) string {
	if len(digest) != len(memberid.Digest{}) {
		return "(malformed)"
	}
	return memberid.Short(memberid.Digest(digest))
}

// Admissible decides whether a joiner's ID and key are compatible with the present members. A member whose ID is taken
// is never replaced by a joiner: a mistyped ID would remove a living member. An operator first removes a member that
// lost its disk, which also retires its signing keys.
func Admissible(rows []raftstore.Row[*statev1.Member], id string, identity memberid.Digest) error {
	known := slices.ContainsFunc(rows, func(r raftstore.Row[*statev1.Member]) bool { return r.Key == id })
	if len(rows) >= directory.MaxMembers && !known {
		return status.Errorf(
			codes.ResourceExhausted,
			"the cluster has %d members, the most that it can have",
			len(rows),
		)
	}
	for _, row := range rows {
		same := string(row.Value.GetIdentity()) == string(identity[:])
		switch {
		case row.Key == id && !same:
			return status.Errorf(codes.AlreadyExists,
				"the cluster has a member %s with another identity key, which joined at %s; the token was not used: "+
					"if that member lost its disk, remove it with `entente cluster remove %s` "+
					"and start this one again, otherwise give this one another id",
				id, row.Value.GetJoinTime().AsTime().Format(time.RFC3339), id)
		case row.Key != id && same:
			return status.Errorf(codes.AlreadyExists,
				"the identity key is that of member %s; the token was not used: "+
					"a data folder belongs to one member, start this one with an empty folder", row.Key)
		}
	}
	return nil
}

// Cluster is what a joiner's configuration and version must fit.
type Cluster struct {
	Name, HomeTrustDomain string
	// CommandVersion is the version of commands that the cluster uses.
	CommandVersion uint32
}

// Compatible decides whether a joiner's configuration and version fit the cluster.
func Compatible(c Cluster, req *ententev1.JoinRequest) error {
	switch {
	case req.GetClusterName() != c.Name:
		return status.Errorf(codes.FailedPrecondition,
			"the joiner has cluster.name = %q, but this cluster is %q; correct the configuration or the join addresses",
			req.GetClusterName(), c.Name)
	case req.GetHomeTrustDomain() != c.HomeTrustDomain:
		return status.Errorf(codes.FailedPrecondition,
			"the joiner has cluster.trust_domain = %q, but this cluster's is %q; correct the configuration",
			req.GetHomeTrustDomain(), c.HomeTrustDomain)
	case req.GetCommandVersion() < c.CommandVersion:
		return status.Errorf(
			codes.FailedPrecondition,
			"the joiner's version %s applies commands up to version %d, but this cluster uses version %d; install "+
				"a newer one",
			DescribeVersion(req.GetVersion()),
			req.GetCommandVersion(),
			c.CommandVersion,
		)
	}
	return nil
}

// DescribeVersion quotes a version for messages.
func DescribeVersion(version string) string {
	if version == "" {
		return "(unnamed)"
	}
	return fmt.Sprintf("%.40q", version)
}
