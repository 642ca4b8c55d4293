package raftstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/raftstore"
)

// crashDir, in the environment, turns a process of this test into a member that writes until it is killed.
const (
	crashDir    = "RAFTSTORE_TEST_CRASH_DIR"
	crashMember = "RAFTSTORE_TEST_CRASH_MEMBER"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		go endWithParent(os.Stdin)
		fmt.Println("failed", runUntilKilled(&loopback{dir: dir}, os.Getenv(crashMember)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// endWithParent ends the process when the test that started it is gone, whatever ended that: the other end of the pipe
// is closed then.
func endWithParent(parent io.Reader) {
	_, _ = io.Copy(io.Discard, parent)
	os.Exit(1)
}

// runUntilKilled is a member in a process of its own. It prints a line for each write that was acknowledged to it, and
// one when it leads.
func runUntilKilled(l *loopback, member string) error {
	s, _, err := l.open(member)
	if err != nil {
		return err
	}
	if !s.HasState() && member == benchMembers[0] {
		if err := s.Bootstrap(); err != nil {
			return err
		}
	}
	var out sync.Mutex
	report := func(words ...any) {
		out.Lock()
		defer out.Unlock()
		fmt.Println(words...)
	}
	ctx := context.Background()
	if err := s.Serving().AwaitLoaded(ctx); err != nil {
		return err
	}
	report("loaded", uint64(s.View().Revision()))
	go func() {
		_ = s.WhileLeading(ctx, func(leading context.Context) {
			for _, other := range benchMembers {
				err := s.Servers().AddVoter(leading, l.server(other))
				if errors.Is(err, raftstore.ErrNotLeader) || errors.Is(err, raftstore.ErrUnknownOutcome) {
					<-leading.Done() // leadership was lost meanwhile, as happens on a busy machine
				}
				if leading.Err() != nil {
					return
				}
				if err != nil {
					report("failed", err)
				}
			}
			report("leads", member)
			<-leading.Done()
		})
	}()
	var acks acknowledged
	var writers sync.WaitGroup
	run := time.Now().UnixNano()
	for writer := range 4 {
		writers.Go(func() {
			for n := 0; ; n++ {
				key := fmt.Sprintf("%s/%d/%d/%d", member, run, writer, n)
				if acks.write(ctx, s, key) {
					report("acknowledged", key)
					out.Lock() // before the view is read, so that the revisions are printed in order
					fmt.Println("published", uint64(s.View().Revision()))
					out.Unlock()
				}
			}
		})
	}
	writers.Wait()
	return nil
}

// crasher is a member in a process of its own, as its parent sees it.
type crasher struct {
	process *exec.Cmd
	done    chan struct{}
	// published is the newest revision that the member has reported, in this run or before. It belongs to the goroutine
	// that reads the output, until done is closed.
	published uint64
}

// kill ends the process as kill -9 does, and returns once all of its output was read.
func (c *crasher) kill(t *testing.T) {
	require.NoError(t, c.process.Process.Kill())
	<-c.done
	require.EqualError(t, c.process.Wait(), "signal: killed")
}

// crashes starts members as processes and reads their output.
type crashes struct {
	t            *testing.T
	loopback     *loopback
	members      map[string]*crasher
	acks         acknowledged
	leaders      chan string
	acknowledged chan struct{}
	loaded       atomic.Int32 // the restarts with a state of their own
}

func (c *crashes) start(member string) {
	process := exec.Command(os.Args[0], "-test.run=^$")
	process.Env = append(os.Environ(), crashDir+"="+c.loopback.dir, crashMember+"="+member)
	process.Stderr = os.Stderr
	parent, err := process.StdinPipe() // it stays open until the process has ended
	require.NoError(c.t, err)
	c.t.Cleanup(func() { parent.Close() })
	out, err := process.StdoutPipe()
	require.NoError(c.t, err)
	require.NoError(c.t, process.Start())
	running := &crasher{process: process, done: make(chan struct{})}
	if before := c.members[member]; before != nil {
		running.published = before.published
	}
	c.members[member] = running
	go func() {
		defer close(running.done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			switch what, which, _ := strings.Cut(lines.Text(), " "); what {
			case "acknowledged":
				c.acks.mu.Lock()
				c.acks.keys = append(c.acks.keys, which)
				c.acks.mu.Unlock()
				select {
				case c.acknowledged <- struct{}{}:
				default:
				}
			case "leads":
				c.leaders <- which
			case "published", "loaded":
				revision, err := strconv.ParseUint(which, 10, 64)
				if err != nil || revision < running.published {
					c.t.Errorf("member %s %s revision %s after it had published %d", member, what, which,
						running.published)
				}
				running.published = revision
				if what == "loaded" && revision > 0 {
					c.loaded.Add(1)
				}
			default:
				c.t.Errorf("member %s: %s", member, lines.Text())
			}
		}
	}()
}

// await returns the member that comes to lead, once n writes more were acknowledged. It is another one than was killed
// last.
func (c *crashes) await(n int, killed string) string {
	deadline := time.NewTimer(waitLimit)
	defer deadline.Stop()
	var leader string
	for leader == "" || n > 0 {
		select {
		case which := <-c.leaders:
			if which != killed {
				leader = which
			}
		case <-c.acknowledged:
			n--
		case <-deadline.C:
			c.t.Fatalf("leader %q, and %d acknowledged writes are missing", leader, n)
		}
	}
	return leader
}

// Processes are killed while they write, first leaders one by one and then all at once. Every write that was
// acknowledged to any of them is there afterwards, on every member. No member ever publishes a state older than one
// that it had published before it was killed.
func TestKilledProcesses(t *testing.T) {
	c := &crashes{
		t:            t,
		loopback:     newLoopback(t),
		members:      map[string]*crasher{},
		leaders:      make(chan string, 64),
		acknowledged: make(chan struct{}, 1024),
	}
	defer func() {
		for _, m := range c.members {
			_ = m.process.Process.Kill() // may have ended
		}
	}()
	for _, member := range slices.Backward(benchMembers) {
		c.start(member)
	}
	leader := c.await(100, "")
	for range 3 {
		killed := leader
		c.members[killed].kill(t)
		leader = c.await(100, killed)
		c.start(killed)
	}
	await(t, "restarted members load the state that they had", func() bool { return c.loaded.Load() == 3 })
	for _, member := range benchMembers {
		c.members[member].kill(t)
	}

	var stores []*raftstore.Store
	for _, member := range benchMembers {
		s, stop, err := c.loopback.open(member)
		require.NoError(t, err)
		require.NoError(t, s.Serving().AwaitLoaded(t.Context()))
		require.GreaterOrEqual(t, uint64(s.View().Revision()), c.members[member].published)
		defer func() { require.NoError(t, stop()) }()
		stores = append(stores, s)
	}
	leaderOf(t, stores)
	for _, s := range stores {
		c.acks.requireAll(t, linearizable(t, s))
	}
	t.Logf("%d acknowledged writes are there", len(c.acks.keys))
}
