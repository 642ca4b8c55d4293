package raftstoretest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/internal/shorttest"
	"github.com/ententehq/entente/raftstore"
)

// Cluster is a Raft group whose members share this process. Each has a disk of its own below the test's temporary
// folder. Its methods are for the test's goroutine; the stores are for any.
type Cluster struct {
	t       testing.TB
	network *network
	dir     string
	adjust  []func(i int, c *raftstore.Config)
	mu      sync.Mutex
	stores  []*raftstore.Store // nil: killed
}

// NewCluster forms a cluster of n members, named member-1 to member-n, all of them voters. It is closed with the test.
// Each of adjust sees the configuration of a member, counted from 0, whenever that is started.
func NewCluster(t testing.TB, n int, adjust ...func(i int, c *raftstore.Config)) *Cluster {
	t.Helper()
	shorttest.Skip(t, "forms a cluster of several members")
	c := &Cluster{t: t, network: newNetwork(), dir: t.TempDir(), adjust: adjust, stores: make([]*raftstore.Store, n)}
	t.Cleanup(c.close)
	for i := range n {
		c.start(i)
	}
	if err := c.stores[0].Bootstrap(); err != nil {
		t.Fatal(err)
	}
	AwaitLeadership(t, c.stores[0])
	for i := 1; i < n; i++ {
		c.addVoter(i)
	}
	c.AwaitCaughtUp()
	return c
}

// addVoter adds a member to the cluster. On a busy machine leadership may be lost meanwhile.
func (c *Cluster) addVoter(i int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	err := raftstore.ErrNotLeader
	for errors.Is(err, raftstore.ErrNotLeader) || errors.Is(err, raftstore.ErrUnknownOutcome) && ctx.Err() == nil {
		leader := c.Store(c.Leader())
		err = leader.Servers().AddVoter(ctx, Server(i))
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// Server returns a member as the Raft configuration has it.
func Server(i int) raftstore.Server {
	id := memberID(i)
	return raftstore.Server{MemberID: id, Identity: identity(id), Address: id}
}

func memberID(i int) string { return fmt.Sprintf("member-%d", i+1) }

func (c *Cluster) start(i int) {
	c.t.Helper()
	id := memberID(i)
	config := raftstore.Config{
		MemberID: id,
		Identity: identity(id),
		Address:  id,
		Dir:      filepath.Join(c.dir, id),
		Stream:   c.network.listen(id),
		Dial: func(to string) (grpc.ClientConnInterface, error) {
			return caller{network: c.network, from: id, to: to}, nil
		},
		Logger: logger(id),
		Fatal:  func(err error) { c.t.Errorf("member %s stopped: %v", id, err) },
		Timing: timing,
	}
	for _, adjust := range c.adjust {
		adjust(i, &config)
	}
	s, err := raftstore.Open(config)
	if err != nil {
		c.t.Fatal(err)
	}
	c.network.serve(s)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stores[i] = s
}

// logger is silent unless RAFTSTORETEST_LOG names a level.
func logger(id string) hclog.Logger {
	level := os.Getenv("RAFTSTORETEST_LOG")
	if level == "" {
		return hclog.NewNullLogger()
	}
	return hclog.New(&hclog.LoggerOptions{Name: id, Level: hclog.LevelFromString(level)})
}

// Store returns the store of a member, counted from 0; nil while it is killed.
func (c *Cluster) Store(i int) *raftstore.Store {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stores[i]
}

// Running returns the stores of the members that are not killed.
func (c *Cluster) Running() []*raftstore.Store {
	c.mu.Lock()
	defer c.mu.Unlock()
	var running []*raftstore.Store
	for _, s := range c.stores {
		if s != nil {
			running = append(running, s)
		}
	}
	return running
}

// Leader waits until a member leads that others follow, and returns its number. It considers the given members, or all
// that are not killed.
func (c *Cluster) Leader(among ...int) int {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	leading, stop := context.WithCancel(ctx)
	leaders := make(chan int, len(c.stores))
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer stop()
	for i := range c.stores {
		s := c.Store(i)
		if s == nil || len(among) > 0 && !slices.Contains(among, i) {
			continue
		}
		waiting.Go(func() {
			// The error of WhileLeading is only the reason of its end.
			_ = s.WhileLeading(leading, func(lead context.Context) {
				// A leader that is cut off leads until its lease ends: only one that can prove its leadership counts.
				if _, err := s.Read(lead, raftstore.ReadOptions{Linearizable: true}); err == nil {
					leaders <- i
				}
				<-lead.Done()
			})
		})
	}
	select {
	case i := <-leaders:
		return i
	case <-ctx.Done():
		c.t.Fatal("no member comes to lead")
		return -1
	}
}

// Kill ends a member as if its process were killed: at once, with what is on its disk.
func (c *Cluster) Kill(i int) {
	c.t.Helper()
	c.mu.Lock()
	s := c.stores[i]
	c.stores[i] = nil
	c.mu.Unlock()
	if s == nil {
		return
	}
	c.network.remove(memberID(i))
	if err := s.Close(); err != nil {
		c.t.Errorf("kill %s: %v", memberID(i), err)
	}
}

// Restart starts a killed member from its disk.
func (c *Cluster) Restart(i int) *raftstore.Store {
	c.t.Helper()
	c.start(i)
	return c.Store(i)
}

// Partition cuts the network between the given members and the others.
func (c *Cluster) Partition(members ...int) {
	side := map[string]int{}
	for _, i := range members {
		side[memberID(i)] = 1
	}
	c.network.cut(side)
}

// Heal ends every partition.
func (c *Cluster) Heal() { c.network.cut(map[string]int{}) }

// LoseAnswers loses the next n answers between members, after the calls were executed.
func (c *Cluster) LoseAnswers(n int) {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	c.network.lost = n
}

// AwaitCaughtUp returns once every running member has applied all that is acknowledged.
func (c *Cluster) AwaitCaughtUp() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	for _, s := range c.Running() {
		var err error
		for err = errors.New("not read"); err != nil && ctx.Err() == nil; {
			// A read of a member that is new or cut off fails fast and is repeated.
			_, err = s.Read(ctx, raftstore.ReadOptions{Linearizable: true})
		}
		if err != nil {
			c.t.Fatalf("member %s does not catch up: %v", s.MemberID(), err)
		}
	}
}

func (c *Cluster) close() {
	for i := range c.stores {
		c.Kill(i)
	}
}
