package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/internal/shorttest"
)

// binary is the built command; every member of these tests is a process of it.
var binary string

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		os.Exit(runChild(role))
	}
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run()) // no test runs the command
	}
	dir, err := os.MkdirTemp("", "entente-e2e-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "entente")
	build := exec.Command("go", "build", "-o", binary, "../cmd/entente")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the command:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// waitLimit bounds every wait. It is generous, since the race detector and a busy machine slow everything down; a test
// that succeeds waits only for the condition itself.
const waitLimit = 60 * time.Second

// cluster is a cluster of real processes.
type cluster struct {
	t       testing.TB
	name    string
	domain  string
	extra   string // further HCL for every member
	dnsName string // cluster.dns_name, unless it is empty
	traces  string // the address of a collector on this machine; empty: none
	timeout string // of heartbeats and elections; empty: a short one
	env     []string
	root    string // where the members' folders are; empty: where temporary files are
	members []*process
	// host returns where the member of a number runs, counted from 0; nil: here.
	host func(number int) host
}

// host is where a member runs: its folder, its address, what its command begins with, and its environment variables.
type host struct {
	dir, ip string
	port    int // of the cluster port, which two others follow; 0: 7440
	prefix  []string
	env     []string
}

// process is one member: its folder and ports outlive the process that runs on them.
type process struct {
	t                 testing.TB
	id, dir           string
	api, bundles, ops string
	env               []string // further environment variables
	prefix            []string // of the command

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	log  bytes.Buffer
	conn *client.Client
}

// newCluster starts a cluster of n processes and waits until each is ready.
func newCluster(t testing.TB, name string, n int, extra string) *cluster {
	t.Helper()
	return newClusterWith(t, name, n, extra)
}

// newClusterWith is newCluster with further environment variables for every member.
func newClusterWith(t testing.TB, name string, n int, extra string, env ...string) *cluster {
	t.Helper()
	shorttest.Skip(t, "runs members as processes")
	c := &cluster{t: t, name: name, domain: name + ".example.org", extra: extra, env: env}
	c.form(n)
	return c
}

// form starts the members.
func (c *cluster) form(n int) {
	for i := range n {
		if i == 0 {
			c.start(c.add("", ""), "--bootstrap")
			continue
		}
		c.join()
	}
}

// join starts one more member with a token of its own.
func (c *cluster) join() *process {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), waitLimit)
	defer cancel()
	token, err := c.members[0].socket().Cluster().CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{
		MemberId: c.nextID(), AutoApprove: true,
	})
	require.NoError(c.t, err)
	p := c.add(token.GetToken(), c.members[0].api)
	c.start(p)
	return p
}

// nextID is the ID of the next member to be added.
func (c *cluster) nextID() string { return fmt.Sprintf("%s-%d", c.name, len(c.members)+1) }

// add writes the configuration of one more member.
func (c *cluster) add(token, address string) *process {
	c.t.Helper()
	id := c.nextID()
	p := &process{t: c.t, id: id, env: c.env}
	if c.host != nil {
		h := c.host(len(c.members))
		p.dir, p.prefix, p.env = h.dir, h.prefix, append(slices.Clone(c.env), h.env...)
		port := cmp.Or(h.port, 7440)
		p.api, p.bundles, p.ops = fmt.Sprintf("%s:%d", h.ip, port), fmt.Sprintf("%s:%d", h.ip, port+1),
			fmt.Sprintf("%s:%d", h.ip, port+2)
	} else {
		// A short path: that of the admin socket has a limit of some hundred bytes.
		dir, err := os.MkdirTemp(c.root, "e2e-")
		require.NoError(c.t, err)
		c.t.Cleanup(func() { _ = os.RemoveAll(dir) })
		ports := freePorts(c.t, 3)
		p.dir, p.api, p.bundles, p.ops = dir, ports[0], ports[1], ports[2]
	}
	p.configure(c, token, address)
	c.members = append(c.members, p)
	c.t.Cleanup(func() {
		p.kill()
		if c.t.Failed() {
			c.t.Logf("log of %s:\n%s", p.id, p.logs())
		}
	})
	return p
}

func (p *process) configure(c *cluster, token, address string) {
	shared := ""
	if c.dnsName != "" {
		shared = fmt.Sprintf("  dns_name     = %q\n", c.dnsName)
	}
	traces := ""
	if c.traces != "" {
		traces = fmt.Sprintf("  traces {\n    address = %q\n    plain_loopback = true\n    ratio = 1\n  }\n", c.traces)
	}
	text := fmt.Sprintf(`
cluster {
  name         = %q
  trust_domain = %q
  region       = %q
%s}
member {
  id       = %q
  zone     = "a"
  data_dir = %q
  listen   = %q
}
telemetry {
  listen = %q
%s}
raft {
  heartbeat_timeout = %[10]q
  election_timeout  = %[10]q
}
`, c.name, c.domain, c.name+"-region", shared, p.id, filepath.Join(p.dir, "data"), p.api, p.ops, traces,
		cmp.Or(c.timeout, "500ms"))
	if !strings.Contains(c.extra, "bundle_endpoint") {
		text += fmt.Sprintf("bundle_endpoint { listen = %q }\n", p.bundles)
	}
	text += strings.ReplaceAll(c.extra, "BUNDLES", p.bundles)
	if token != "" {
		require.NoError(c.t, os.WriteFile(filepath.Join(p.dir, "token"), []byte(token), 0o600))
		text += fmt.Sprintf(
			"join {\n  addresses = [%q]\n  token = %q\n}\n", address, "file:"+filepath.Join(p.dir, "token"),
		)
	}
	require.NoError(c.t, os.WriteFile(filepath.Join(p.dir, "entente.hcl"), []byte(text), 0o600))
}

// start runs a member and waits until it is ready.
func (c *cluster) start(p *process, flags ...string) {
	c.t.Helper()
	p.run(flags...)
	p.waitReady()
}

// run starts the process and waits for nothing.
func (p *process) run(flags ...string) {
	p.t.Helper()
	shorttest.Skip(p.t, "runs members as processes")
	p.mu.Lock()
	defer p.mu.Unlock()
	command := append(slices.Clone(p.prefix), binary, "server", "--config", filepath.Join(p.dir, "entente.hcl"))
	command = append(command, flags...)
	p.cmd = exec.Command(command[0], command[1:]...)
	out := &lockedWriter{mu: &p.mu, w: &p.log}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// The member ends when its standard input does, and so with the test binary, however that ends.
	p.cmd.Env = append(append(os.Environ(), "ENTENTE_END_WITH_STDIN=1"), p.env...)
	_, err := p.cmd.StdinPipe()
	require.NoError(p.t, err)
	require.NoError(p.t, p.cmd.Start())
	done := make(chan struct{})
	p.done = done
	cmd := p.cmd
	go func() { _ = cmd.Wait(); close(done) }()
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (p *process) logs() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// kill ends the process as a power cut would.
func (p *process) kill() { p.signal(syscall.SIGKILL) }

// stop ends it in order.
func (p *process) stop() { p.signal(syscall.SIGTERM) }

func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(sig)
	select {
	case <-done:
	case <-time.After(waitLimit):
		p.t.Errorf("%s did not end within %s of signal %s", p.id, waitLimit, sig)
		_ = cmd.Process.Kill()
		<-done
	}
}

// ended returns a channel that closes when the process has ended.
func (p *process) ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// socket returns the connection to the admin socket, which outlives the process and is closed with the test.
func (p *process) socket() *client.Client {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil {
		conn, err := client.New(
			p.t.Context(),
			client.WithAdminSocket(filepath.Join(p.dir, "data", "admin.sock")),
			client.WithDialOptions(
				grpc.WithDefaultCallOptions(
					grpc.WaitForReady(true),
				), // a member that was started again may take a moment
				grpc.WithConnectParams(grpc.ConnectParams{
					Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second},
				}),
			),
		)
		require.NoError(p.t, err)
		p.t.Cleanup(func() { _ = conn.Close() })
		p.conn = conn
	}
	return p.conn
}

func (p *process) waitReady() {
	p.t.Helper()
	eventually(p.t, "member "+p.id+" is ready", func() error {
		select {
		case <-p.ended():
			return fmt.Errorf("it has ended: %s", p.logs())
		default:
		}
		return errors.Join(p.ready(), p.readyTo("/ready/write"))
	})
}

// ready returns why the member reports that it is not ready, or nil.
func (p *process) ready() error { return p.readyTo("/ready") }

func (p *process) readyTo(path string) error {
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get("http://" + p.ops + path)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", text)
	}
	return nil
}

// document fetches a document from the bundle endpoint, whose certificate other tests verify.
func (p *process) document(path string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{
			InsecureSkipVerify: true,
		}, //nolint:gosec // what is read here is compared, not trusted
	}}
	answer, err := client.Get("https://" + p.bundles + path)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", answer.Status, text)
	}
	return string(text), nil
}

// leader waits until the cluster has a leader and returns it.
func (c *cluster) leader() *process {
	c.t.Helper()
	var found *process
	eventually(c.t, "the cluster has a leader", func() error {
		var failed error
		for _, p := range c.members {
			if p.isRunning() {
				id, err := p.leaderID()
				failed = errors.Join(failed, err)
				for _, q := range c.members {
					if q.id == id && q.isRunning() {
						found = q
						return nil
					}
				}
			}
		}
		return errors.Join(errors.New("no member names a leader that runs"), failed)
	})
	return found
}

func (p *process) isRunning() bool {
	select {
	case <-p.ended():
		return false
	default:
		return true
	}
}

func (p *process) leaderID() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	answer, err := p.socket().Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{
		Read: &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_STALE},
	})
	if err != nil {
		return "", err
	}
	for _, m := range answer.GetMembers() {
		if m.GetLeader() {
			return m.GetId(), nil
		}
	}
	return "", fmt.Errorf("%s knows no leader", p.id)
}

// others returns the members that are not p.
func (c *cluster) others(p *process) []*process {
	var out []*process
	for _, q := range c.members {
		if q != p {
			out = append(out, q)
		}
	}
	return out
}

// eventually waits until try succeeds, and fails the test with its last error when waitLimit ends.
func eventually(t testing.TB, what string, try func() error) {
	t.Helper()
	deadline := time.NewTimer(waitLimit)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %s until %s: %v", waitLimit, what, err)
		}
	}
}

// freePorts returns loopback addresses on which no process listens at the moment.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}

// timerUntil returns a channel that fires once a moment has passed.
func timerUntil(t *testing.T, moment time.Time) <-chan time.Time {
	timer := time.NewTimer(time.Until(moment) + 100*time.Millisecond)
	t.Cleanup(func() { timer.Stop() })
	return timer.C
}
