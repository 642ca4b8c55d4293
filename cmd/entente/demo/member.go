package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"

	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// member is one server process, with what it takes to start it again.
type member struct {
	id         string
	dir        string
	region     *region
	zone       string
	executable string
	reserved   reservation
	api        netip.AddrPort
	endpoint   netip.AddrPort
	operations netip.AddrPort
	// conn is to its admin socket, whether it runs or not.
	conn *grpc.ClientConn

	mu      sync.Mutex
	process *exec.Cmd
	stdin   io.Closer
	exited  chan struct{}
}

// configuration is what the demo's members are told. Lifetimes and intervals are short, so that what takes hours in
// production can be watched; the timing of Raft is what everybody has.
var configuration = template.Must(template.New("member").Parse(`cluster {
  name         = {{.Region}}
  trust_domain = {{.TrustDomain}}
  region       = {{.Region}}
}

member {
  id       = {{.ID}}
  zone     = {{.Zone}}
  data_dir = {{.DataDir}}
  listen   = {{.API}}
}

bundle_endpoint {
  listen       = {{.Endpoint}}
  refresh_hint = "1s"
  profile "https_spiffe" {}
}

authority {
  ca_ttl        = "1h"
  x509_svid_ttl = "1m"
  jwt_svid_ttl  = "1m"
  signing_grace = "1m"
}

federation {
  min_refresh = "1s"
}

telemetry {
  listen = {{.Operations}}
}
{{if .Join}}
join {
  addresses = [{{.Join}}]
  token     = {{.Token}}
}
{{end}}`))

func (m *member) socket() string     { return filepath.Join(m.dir, "data", "admin.sock") }
func (m *member) configFile() string { return filepath.Join(m.dir, "entente.hcl") }
func (m *member) logFile() string    { return filepath.Join(m.dir, "member.log") }

// configure writes the member's configuration. Without a seed it is the one that forms the cluster.
func (m *member) configure(seed *member, token string) error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of %s: %w", m.id, err)
	}
	values := map[string]string{
		"Region": m.region.name, "TrustDomain": m.region.domain.Name(), "ID": m.id, "Zone": m.zone,
		"DataDir": filepath.Join(m.dir, "data"), "API": m.api.String(), "Endpoint": m.endpoint.String(), "Operations": m.operations.String(),
	}
	if seed != nil {
		file := filepath.Join(m.dir, "token")
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			return fmt.Errorf("write the join token of %s: %w", m.id, err)
		}
		values["Join"], values["Token"] = seed.api.String(), "file:"+file
	}
	for k, v := range values {
		// A folder's name can hold what HCL would take for a template.
		values[k] = strings.NewReplacer("${", "$${", "%{", "%%{").Replace(strconv.Quote(v))
	}
	var b bytes.Buffer
	if err := configuration.Execute(&b, values); err != nil {
		return fmt.Errorf("write the configuration of %s: %w", m.id, err)
	}
	if err := os.WriteFile(m.configFile(), b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write the configuration of %s: %w", m.id, err)
	}
	return nil
}

// start starts the process. It runs until stop or kill, or until the demo ends.
func (m *member) start(arguments ...string) error {
	log, err := os.OpenFile(m.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", m.id, err)
	}
	defer func() { _ = log.Close() }()
	c := exec.Command(m.executable, append([]string{"server", "--config", m.configFile()}, arguments...)...)
	c.Dir, c.Stdout, c.Stderr = m.dir, log, log
	c.Env = append(os.Environ(), tetherVariable+"=1")
	// A group of its own: the interrupt key is for the demo, which then ends its members in order.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := c.StdinPipe()
	if err != nil {
		return fmt.Errorf("start %s: %w", m.id, err)
	}
	m.reserved.release()
	if err := c.Start(); err != nil {
		return fmt.Errorf("start %s: %w", m.id, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = c.Wait()
		close(exited)
	}()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.process, m.stdin, m.exited = c, stdin, exited
	return nil
}

// startOver forgets a start that came to nothing: the folder goes, and the ports are chosen anew.
func (m *member) startOver() error {
	if err := os.RemoveAll(m.dir); err != nil {
		return fmt.Errorf("start %s over: %w", m.id, err)
	}
	return m.reserve()
}

// gone is closed once the process has ended; nil if it never ran.
func (m *member) gone() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exited
}

// kill ends the process as a crash would, and waits for it.
func (m *member) kill() {
	m.mu.Lock()
	process, exited := m.process, m.exited
	m.mu.Unlock()
	if process != nil {
		_ = process.Process.Kill()
		<-exited
	}
}

// stop asks the process to end, waits, and kills it if it does not.
func (m *member) stop() {
	m.mu.Lock()
	process, stdin, exited := m.process, m.stdin, m.exited
	m.mu.Unlock()
	if process == nil {
		return
	}
	_ = stdin.Close()
	_ = process.Process.Signal(syscall.SIGTERM)
	patience := time.NewTimer(endTime)
	defer patience.Stop()
	select {
	case <-exited:
	case <-patience.C:
		m.kill()
	}
}

// members asks the member whom it knows. It waits for a member that is starting.
func (m *member) members(ctx context.Context) (*ententev1.ListMembersResponse, error) {
	return ententev1.NewClusterServiceClient(m.conn).ListMembers(ctx, &ententev1.ListMembersRequest{})
}

// errEnded says that a process ended that should run.
var errEnded = errors.New("it has ended")

// await polls a condition of the member until it holds, ctx ends, or the process does.
func (m *member) await(ctx context.Context, what string, holds func(context.Context) (bool, error)) error {
	err := poll(ctx, m.gone(), holds)
	if err != nil {
		return fmt.Errorf("wait until %s %s: %w%s", m.id, what, err, m.lastLines())
	}
	return nil
}

const (
	// pollInterval is how often a condition is looked at that nothing announces.
	pollInterval = 50 * time.Millisecond
	// pollTimeout is how long one look may take.
	pollTimeout = 5 * time.Second
)

// poll looks at a condition until it holds, ctx ends, or ended is closed. The error is what the last look met.
func poll(ctx context.Context, ended <-chan struct{}, holds func(context.Context) (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var last error
	for {
		look, cancel := context.WithTimeout(ctx, pollTimeout)
		ok, err := holds(look)
		cancel()
		if ok && err == nil {
			return nil
		}
		last = err
		select {
		case <-ctx.Done():
			if last != nil {
				return last
			}
			return context.Cause(ctx)
		case <-ended:
			return errEnded
		case <-tick.C:
		}
	}
}

// lastLines returns the end of the member's log, for an error.
func (m *member) lastLines() string {
	b, err := os.ReadFile(m.logFile())
	if err != nil || len(b) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	const most = 6
	return "; the end of its log:\n    " + strings.Join(lines[max(0, len(lines)-most):], "\n    ")
}
