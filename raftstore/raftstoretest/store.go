// Package raftstoretest has stores to test with: one member in memory ([New]), or several in one process ([NewCluster])
// that can be killed, restarted from their disks, and cut off from each other.
package raftstoretest

import (
	"context"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/ententehq/entente/raftstore"
)

// waitLimit bounds every wait of this package, so that a test that hangs ends with a message. It is far longer than
// anything takes on a busy machine.
const waitLimit = 5 * time.Minute

// timing makes elections quick: between members in one process only the machine itself is slow.
var timing = raftstore.Timing{
	Heartbeat:  150 * time.Millisecond,
	Election:   150 * time.Millisecond,
	Lease:      150 * time.Millisecond,
	LeaderWait: 10 * time.Second,
}

// New returns the store of a cluster of one member, which leads. It lives in memory and is closed with the test.
func New(t testing.TB) *raftstore.Store {
	t.Helper()
	alone := timing
	// There are no other members; these are only the time until the first election.
	alone.Heartbeat, alone.Election, alone.Lease = 10*time.Millisecond, 10*time.Millisecond, 10*time.Millisecond
	s, err := raftstore.Open(raftstore.Config{
		MemberID: "member-1",
		Identity: identity("member-1"),
		Fatal:    func(err error) { t.Errorf("the store stopped: %v", err) },
		Timing:   alone,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	if err := s.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	AwaitLeadership(t, s)
	return s
}

// AwaitLeadership returns once a store leads its cluster.
func AwaitLeadership(t testing.TB, s *raftstore.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	leading, stop := context.WithCancel(ctx)
	defer stop()
	if err := s.WhileLeading(leading, func(context.Context) { stop() }); ctx.Err() != nil || leading.Err() == nil {
		t.Fatalf("member %s does not come to lead: %v", s.MemberID(), err)
	}
}

func identity(memberID string) [32]byte { return sha256.Sum256([]byte(memberID)) }
