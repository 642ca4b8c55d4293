package registry

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
)

// The bounds of a lease. The lower bound of the ttl leaves room for one or two lost heartbeats between a renewal and
// the leader.
const (
	MinTTL = 5 * time.Second
	MaxTTL = 24 * time.Hour
	// DefaultRemovalDelay is how long instances stay, unhealthy, after their lease has run out.
	DefaultRemovalDelay = 5 * time.Minute
	MaxRemovalDelay     = 7 * 24 * time.Hour
)

// errLease is returned for a request that does not describe or name a lease.
var errLease = errors.New("not a lease")

const (
	// secretSize makes secrets that cannot be guessed; leaseIDSize makes IDs for which no second secret is found by
	// chance.
	secretSize  = 16
	leaseIDSize = 8
)

// newSecret returns a random secret, by which the holder names its lease. Only its digest is stored.
func newSecret() string {
	b := make([]byte, secretSize)
	// crypto/rand never fails: it ends the process instead.
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// digestOf parses a secret. The ID of its lease is the beginning of the digest.
func digestOf(secret string) (digest [sha256.Size]byte, id string, err error) {
	b, err := hex.DecodeString(secret)
	if err != nil || len(b) != secretSize || hex.EncodeToString(b) != secret {
		// The error does not repeat the input, which may be a secret with a typing error.
		return digest, "", fmt.Errorf(
			"%w: the secret is not %d hexadecimal digits; send the one that the lease was opened with",
			errLease, 2*secretSize,
		)
	}
	digest = sha256.Sum256(b)
	return digest, hex.EncodeToString(digest[:leaseIDSize]), nil
}

// leaseTerms are the durations that a holder requests.
type leaseTerms struct{ ttl, removalDelay time.Duration }

func parseTerms(m *ententev1.OpenLease) (leaseTerms, error) {
	t := leaseTerms{ttl: m.GetTtl().AsDuration(), removalDelay: DefaultRemovalDelay}
	if m.GetTtl() == nil || m.GetTtl().CheckValid() != nil || t.ttl < MinTTL || t.ttl > MaxTTL {
		return t, fmt.Errorf("%w: a ttl of %s; %s to %s are allowed", errLease, t.ttl, MinTTL, MaxTTL)
	}
	if g := m.GetRemovalDelay(); g != nil {
		t.removalDelay = g.AsDuration()
		if g.CheckValid() != nil || t.removalDelay < 0 || t.removalDelay > MaxRemovalDelay {
			return t, fmt.Errorf("%w: removal_delay is %s; 0s to %s are allowed",
				errLease, t.removalDelay, MaxRemovalDelay)
		}
	}
	return t, nil
}

// ownerOf returns the name under which a caller holds leases. All callers of the admin socket are the same
// administrator.
func ownerOf(c access.Caller) string {
	if c.Kind() == access.Socket {
		return "the local administrator"
	}
	return c.String()
}

// ownedLease returns the lease that a secret names, if the caller opened it or is the local administrator. Knowing the
// secret is not enough, because a secret can leak into a log.
func ownedLease(r raftstore.Reader, secret string, caller access.Caller) (raftstore.Row[*statev1.Lease], error) {
	digest, id, err := digestOf(secret)
	if err != nil {
		return raftstore.Row[*statev1.Lease]{}, invalid(apierror.InField("lease", err))
	}
	row, found, err := Leases.Get(r, id)
	switch {
	case err != nil:
		return row, err
	case !found || row.Value.GetEnded() || subtle.ConstantTimeCompare(row.Value.GetSecretSha256(), digest[:]) != 1:
		return row, status.Error(
			codes.NotFound,
			"the lease does not exist, or no longer: open a new one, and register its instances again",
		)
	case row.Value.GetOwner() != ownerOf(caller) && caller.Kind() != access.Socket:
		return row, status.Errorf(
			codes.PermissionDenied,
			"the lease %s belongs to another owner; open one of your own",
			id,
		)
	}
	return row, nil
}

// heldLease returns a lease if it is held by a stream. The newest stream of a holder holds its lease: a control plane
// that reconnects cannot know whether the member has noticed the end of the stream before.
func heldLease(r raftstore.Reader, h holder) (raftstore.Row[*statev1.Lease], error) {
	row, found, err := Leases.Get(r, h.lease)
	switch {
	case err != nil:
		return row, err
	case !found || row.Value.GetEnded():
		return row, status.Errorf(codes.NotFound,
			"the lease %s is gone, with all its instances: open a new one, and register them again", h.lease)
	case row.Value.GetStream() != h.stream:
		return row, status.Errorf(
			codes.Aborted,
			"the lease %s is now held by another stream: end this one; if you opened no other, your "+
				"secret and your identity have leaked",
			h.lease,
		)
	}
	return row, nil
}

// revive makes a lease that has run out held again, with all instances that are left.
func revive(lease *statev1.Lease) { lease.ExpireTime, lease.Kept = nil, 0 }

func leaseProto(row raftstore.Row[*statev1.Lease], instances int, scope access.Scope) *ententev1.Lease {
	v := row.Value
	return &ententev1.Lease{
		Id: row.Key, Ttl: v.GetTtl(), RemovalDelay: v.GetRemovalDelay(), Owner: v.GetOwner(),
		CreateTime: v.GetCreateTime(), ExpireTime: v.GetExpireTime(), Instances: uint32(instances),
		Lost: lostProto(v.GetLost(), scope),
	}
}

func leaseRow(digest []byte, t leaseTerms, owner, stream string, now time.Time) *statev1.Lease {
	return &statev1.Lease{
		SecretSha256: digest, Ttl: durationpb.New(t.ttl), RemovalDelay: durationpb.New(t.removalDelay), Owner: owner,
		CreateTime: timestamppb.New(now), Stream: stream,
	}
}
