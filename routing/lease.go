package routing

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
	"github.com/ententehq/entente/raftstore"
)

// The bounds of a lease: the lower one leaves room for a lost heartbeat or two between a renewal and the leader, the upper
// one is what still deserves the name.
const (
	MinTTL = 5 * time.Second
	MaxTTL = 24 * time.Hour
	// DefaultGoneAfter is how long instances stay, unhealthy, after their lease ran out.
	DefaultGoneAfter = 5 * time.Minute
	MaxGoneAfter     = 7 * 24 * time.Hour
)

// ErrLease is returned for what cannot be a lease, or name one.
var ErrLease = errors.New("not a lease")

// Leases is the table of all leases, by ID.
var Leases = raftstore.NewTable[*statev1.Lease]("leases")

// leaseState is what a lease leaves of its instances.
type leaseState uint8

const (
	// leaseGone: there is no such lease any more, and what it left behind is being removed.
	leaseGone leaseState = iota
	leaseHeld
	leaseLapsed
	// importExpired is the state of what was imported, and is too old to be offered.
	importExpired
)

func stateOf(r raftstore.Reader, id string) (leaseState, error) {
	row, found, err := Leases.Get(r, id)
	switch {
	case err != nil || !found:
		return leaseGone, err
	case row.Value.GetLapseTime() != nil:
		return leaseLapsed, nil
	}
	return leaseHeld, nil
}

const (
	// secretSize makes secrets that nobody guesses, leaseIDSize IDs that nobody finds a second secret for by chance.
	secretSize  = 16
	leaseIDSize = 8
)

// newSecret draws what names a new lease to its holder. Only its digest is stored.
func newSecret() string {
	b := make([]byte, secretSize)
	// crypto/rand never fails: it ends the process rather than return what is not random.
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// digestOf reads a secret; the ID of its lease is the beginning of the digest.
func digestOf(secret string) (digest [sha256.Size]byte, id string, err error) {
	b, err := hex.DecodeString(secret)
	if err != nil || len(b) != secretSize || hex.EncodeToString(b) != secret {
		// What was sent may be a secret with a slip in it, and is not repeated.
		return digest, "", fmt.Errorf("%w: the secret is not %d hexadecimal digits; send the one that the lease was opened with", ErrLease, 2*secretSize)
	}
	digest = sha256.Sum256(b)
	return digest, hex.EncodeToString(digest[:leaseIDSize]), nil
}

// leaseTerms are what a holder asks for.
type leaseTerms struct{ ttl, goneAfter time.Duration }

func parseTerms(m *ententev1.OpenLease) (leaseTerms, error) {
	t := leaseTerms{ttl: m.GetTtl().AsDuration(), goneAfter: DefaultGoneAfter}
	if m.GetTtl() == nil || m.GetTtl().CheckValid() != nil || t.ttl < MinTTL || t.ttl > MaxTTL {
		return t, fmt.Errorf("%w: a ttl of %s; %s to %s are allowed", ErrLease, t.ttl, MinTTL, MaxTTL)
	}
	if g := m.GetGoneAfter(); g != nil {
		t.goneAfter = g.AsDuration()
		if g.CheckValid() != nil || t.goneAfter < 0 || t.goneAfter > MaxGoneAfter {
			return t, fmt.Errorf("%w: gone_after is %s; 0s to %s are allowed", ErrLease, t.goneAfter, MaxGoneAfter)
		}
	}
	return t, nil
}

// ownerOf names who may hold a lease. Whoever reaches the admin socket is one and the same administrator.
func ownerOf(c access.Caller) string {
	if c.Kind() == access.Socket {
		return "the local administrator"
	}
	return c.String()
}

// holdable returns the lease that a secret names, if the caller is the one who took it: to know a secret is not enough, since
// it can end up in a log; and the local administrator may everything.
func holdable(r raftstore.Reader, secret string, caller access.Caller) (raftstore.Row[*statev1.Lease], error) {
	digest, id, err := digestOf(secret)
	if err != nil {
		return raftstore.Row[*statev1.Lease]{}, invalid(err)
	}
	row, found, err := Leases.Get(r, id)
	switch {
	case err != nil:
		return row, err
	case !found || subtle.ConstantTimeCompare(row.Value.GetSecretSha256(), digest[:]) != 1:
		return row, status.Error(codes.NotFound, "there is no such lease, or no longer: open a new one, and register its instances again")
	case row.Value.GetOwner() != ownerOf(caller) && caller.Kind() != access.Socket:
		return row, status.Errorf(codes.PermissionDenied, "the lease %s was taken by somebody else; open one of your own", id)
	}
	return row, nil
}

// heldBy returns the lease that a stream holds. Another stream of the same holder may have taken it up since: a control plane that
// lost its connection cannot know whether the member has noticed, so the newest stream is the one that counts.
func heldBy(r raftstore.Reader, lease, stream string) (raftstore.Row[*statev1.Lease], error) {
	row, found, err := Leases.Get(r, lease)
	switch {
	case err != nil:
		return row, err
	case !found:
		return row, status.Errorf(codes.NotFound, "the lease %s is gone, with all its instances: open a new one, and register them again", lease)
	case row.Value.GetStream() != stream:
		return row, status.Errorf(codes.Aborted, "another stream has taken up the lease %s, and holds it now: end this one; if you opened no other, somebody has your secret and your identity", lease)
	}
	return row, nil
}

func leaseProto(row raftstore.Row[*statev1.Lease], instances int) *ententev1.Lease {
	v := row.Value
	return &ententev1.Lease{
		Id: row.Key, Ttl: v.GetTtl(), GoneAfter: v.GetGoneAfter(), Owner: v.GetOwner(), CreateTime: v.GetCreateTime(),
		LapseTime: v.GetLapseTime(), Instances: uint32(instances),
	}
}

func leaseRow(digest []byte, t leaseTerms, owner, stream string, now time.Time) *statev1.Lease {
	return &statev1.Lease{
		SecretSha256: digest, Ttl: durationpb.New(t.ttl), GoneAfter: durationpb.New(t.goneAfter), Owner: owner,
		CreateTime: timestamppb.New(now), Stream: stream,
	}
}
