package e2e

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// program is a process of an xDS test, whose lines are read as they come.
type program struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd

	mu     sync.Mutex
	calls  int
	counts map[string]int // answered calls by address
	who    map[string]string
	errs   []string
	lines  []string
	fresh  chan struct{}
}

// start runs a program until the test ends.
func start(t testing.TB, name string, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{
		t:      t,
		name:   name,
		cmd:    cmd,
		counts: map[string]int{},
		who:    map[string]string{},
		fresh:  make(chan struct{}, 1),
	}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = &lockedWriter{mu: &p.mu, w: (*errorLines)(p)}
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.line(lines.Text())
		}
	}()
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
		if t.Failed() {
			p.mu.Lock()
			defer p.mu.Unlock()
			t.Logf("last output of %s:\n%s", name, strings.Join(p.lines[max(0, len(p.lines)-60):], "\n"))
		}
	})
	return p
}

// errorLines collects the standard error of a program.
type errorLines program

func (e *errorLines) Write(b []byte) (int, error) {
	e.lines = append(e.lines, strings.TrimSpace(string(b)))
	return len(b), nil
}

func (p *program) line(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, text)
	if len(p.lines) > 1000 {
		p.lines = p.lines[500:]
	}
	switch fields := strings.Fields(text); {
	case len(fields) == 3 && fields[0] == "ok":
		p.calls++
		p.counts[fields[1]]++
		p.who[fields[1]] = fields[2]
	case len(fields) > 0 && fields[0] == "error":
		p.calls++
		p.errs = append(p.errs, text)
	}
	select {
	case p.fresh <- struct{}{}:
	default:
	}
}

// next counts the next n calls, by the address that answered, and returns the errors among them.
func (p *program) next(n int) (counts map[string]int, errs []string) {
	p.t.Helper()
	p.mu.Lock()
	p.counts, p.errs = map[string]int{}, nil
	until := p.calls + n
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(p.t.Context(), waitLimit)
	defer cancel()
	for {
		p.mu.Lock()
		if p.calls >= until {
			defer p.mu.Unlock()
			return maps.Clone(p.counts), slices.Clone(p.errs)
		}
		p.mu.Unlock()
		select {
		case <-p.fresh:
		case <-ctx.Done():
			p.t.Fatalf("%s made no %d calls within %s", p.name, n, waitLimit)
		}
	}
}

// goesTo waits until calls go to the addresses of one group, nine of ten at least, and none fails.
func (p *program) goesTo(what string, addresses ...string) {
	p.t.Helper()
	eventually(p.t, p.name+" calls "+what, func() error {
		const n = 100
		counts, errs := p.next(n)
		there := 0
		for _, a := range addresses {
			there += counts[a]
		}
		if len(errs) > 0 || there < n*9/10 {
			return fmt.Errorf(
				"%d of %d calls go there (%v), %d fail: %.300s", there, n, counts, len(errs), strings.Join(errs, "; "),
			)
		}
		return nil
	})
}

// whoIs is who answered last at an address.
func (p *program) whoIs(address string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.who[address]
}

// drainsInto waits until no call goes to an address any more. None may fail meanwhile; all go to the others.
func (p *program) drainsInto(drained string, others ...string) {
	p.t.Helper()
	eventually(p.t, p.name+" calls what does not drain", func() error {
		counts, errs := p.next(100)
		require.Empty(p.t, errs, "calls fail while an instance drains")
		if counts[drained] > 0 {
			return fmt.Errorf("%d calls still go to what drains", counts[drained])
		}
		for _, a := range others {
			if counts[a] == 0 {
				return fmt.Errorf("no call goes to %s: %v", a, counts)
			}
		}
		return nil
	})
}

// mesh is two federated clusters, of which eu imports the greeter of us, and what runs beside them: folders with SVIDs
// that stay fresh, and servers.
type mesh struct {
	t      *testing.T
	eu, us *cluster
	// names is the address of the name server that the programs ask for the members, unless it is empty.
	names string
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{t: t, eu: newCluster(t, "eu", 1, quick), us: newCluster(t, "us", 1, quick)}
	m.federate()
	return m
}

// federate federates the clusters, and lets eu import the greeter of us.
func (m *mesh) federate() {
	t := m.t
	t.Helper()
	peerUp(t, m.eu, m.us)
	m.us.members[0].command("service", "export", "greeter", "--to", m.eu.domain)
	m.eu.members[0].command("service", "import", "greeter", "--from", m.us.domain)
	eventually(t, "each cluster has the other's bundle", func() error {
		for _, pair := range [][2]*cluster{{m.eu, m.us}, {m.us, m.eu}} {
			if _, err := pair[0].members[0].socket().Bundles().GetBundle(t.Context(), &ententev1.GetBundleRequest{
				TrustDomain: pair[1].domain,
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// command runs the command against a member's admin socket and returns what it prints.
func (p *process) command(args ...string) string {
	p.t.Helper()
	cmd := exec.Command(binary, append(args, "--socket", filepath.Join(p.dir, "data", "admin.sock"))...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	require.NoError(p.t, err, "%v: %s", args, said.String())
	return string(out)
}

// folder keeps an SVID fresh in a folder, as `svid x509 --watch` does, and waits until it also holds the bundles of
// both domains.
func (m *mesh) folder(c *cluster, path string, flags ...string) string {
	m.t.Helper()
	dir := m.t.TempDir()
	renewedBy := c.members[len(c.members)-1] // no test kills the last one, whatever becomes of the others
	args := append([]string{"svid", "x509", "--watch", "--spiffe-id", "spiffe://" + c.domain + path, "--dir", dir,
		"--socket", filepath.Join(renewedBy.dir, "data", "admin.sock")}, flags...)
	start(m.t, "svid "+path, exec.Command(binary, args...))
	eventually(m.t, "the folder of "+path+" is filled", func() error {
		for _, other := range []*cluster{m.eu, m.us} {
			if _, err := os.Stat(filepath.Join(dir, "roots-"+other.domain+".pem")); err != nil {
				return err
			}
		}
		return nil
	})
	return dir
}

// bootstrap writes the bootstrap file for a folder.
func (m *mesh) bootstrap(c *cluster, dir, locality string, flags ...string) string {
	m.t.Helper()
	path := filepath.Join(dir, "bootstrap.json")
	text := c.members[0].command(
		append([]string{"xds", "bootstrap", "--dir", dir, "--locality", locality, "--node-id", "test"}, flags...)...)
	if m.names != "" {
		require.Equal(m.t, 1, strings.Count(text, `"dns:///`), "one target for all members: %s", text)
		text = strings.Replace(text, `"dns:///`, `"dns://`+m.names+"/", 1)
	}
	require.NoError(m.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// grant lets an SVID of a domain discover services.
func (m *mesh) grant(c *cluster, path string) {
	m.t.Helper()
	c.members[0].command("access", "grant", "discovery", "--spiffe-id", "spiffe://"+c.domain+path)
}

// child runs one of the programs of these tests.
func (m *mesh) child(role, name, bootstrap, target string) *program {
	m.t.Helper()
	self, err := os.Executable()
	require.NoError(m.t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childRole+"="+role, childTarget+"="+target, "GRPC_XDS_BOOTSTRAP="+bootstrap,
		"GRPC_EXPERIMENTAL_XDS_MTLS_SPIFFE=true", "GRPC_GO_LOG_SEVERITY_LEVEL=error")
	return start(m.t, name, cmd)
}

// server starts a gRPC server that belongs to a cluster, and registers it there.
func (m *mesh) server(c *cluster, zone, address string) *program {
	m.t.Helper()
	path := "/greeter/" + zone
	m.grant(c, path)
	dir := m.folder(c, path)
	p := m.child(childServer, "server "+c.name+" "+zone, m.bootstrap(c, dir, c.name+"-region/"+zone), address)
	eventually(m.t, "the server listens", func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, line := range p.lines {
			if strings.HasPrefix(line, "mode SERVING") || strings.HasPrefix(line, "mode serving") {
				return nil
			}
		}
		return fmt.Errorf("its output is %q", p.lines)
	})
	m.register(c, zone, address, "healthy")
	return p
}

func (m *mesh) register(c *cluster, zone, address, health string) {
	m.t.Helper()
	c.members[0].command("service", "register", "greeter", "--endpoint", address, "--locality", c.name+"-region/"+zone,
		"--spiffe-id", "spiffe://"+c.domain+"/greeter/"+zone, "--health", health)
}

// TestGRPCFollowsRoutes runs gRPC's own xDS client and servers: calls stay in the client's zone, move to the other zone
// and to the other region and trust domain as instances go, come back, and end where trust ends.
func TestGRPCFollowsRoutes(t *testing.T) {
	m := newMesh(t)
	ports := freePorts(t, 4)
	own, ownToo, near, far := ports[0], ports[1], ports[2], ports[3]
	m.server(m.eu, "a", own)
	second := m.server(m.eu, "a", ownToo)
	m.server(m.eu, "b", near)
	m.server(m.us, "a", far)

	m.grant(m.eu, "/caller")
	client := m.child(
		childClient, "client", m.bootstrap(m.eu, m.folder(m.eu, "/caller"), "eu-region/a"), "xds:///greeter",
	)
	client.goesTo("its own zone", own, ownToo)
	for _, address := range []string{own, ownToo} {
		require.Contains(t, client.whoIs(address), "spiffe://eu.example.org/greeter/", address)
	}

	// A graceful drain: no call fails. Half of the zone is left, which counts for 70 percent of what is needed, so that
	// the next zone takes the rest.
	_, _ = client.next(1) // what failed from here on would be an error
	m.register(m.eu, "a", own, "draining")
	client.drainsInto(own, ownToo, near)

	// The rest of the zone dies without a word.
	require.NoError(t, second.cmd.Process.Kill())
	client.goesTo("the other zone of its region", near)

	// The region is taken out of service: calls go to the other region and into the other trust domain, over mutual
	// TLS.
	m.register(m.eu, "a", ownToo, "unhealthy")
	m.register(m.eu, "b", near, "unhealthy")
	client.goesTo("the other region", far)
	require.Equal(t, "spiffe://us.example.org/greeter/a", client.whoIs(far))

	// And back.
	m.register(m.eu, "b", near, "healthy")
	client.goesTo("the zone that came back", near)
	m.eu.members[0].command("service", "deregister", "greeter", "--endpoint", ownToo)
	m.register(m.eu, "a", own, "healthy")
	client.goesTo("its own zone again", own)

	// Where trust is suspended no call goes, even if there is nowhere else to go.
	m.register(m.eu, "a", own, "unhealthy")
	m.register(m.eu, "b", near, "unhealthy")
	client.goesTo("the other region again", far)
	m.eu.members[0].command("federation", "suspend", m.us.domain)
	eventually(t, "no call goes to the suspended domain", func() error {
		counts, _ := client.next(20)
		if counts[far] > 0 {
			return fmt.Errorf("%d calls went there", counts[far])
		}
		return nil
	})
	counts, _ := client.next(100)
	require.Zero(t, counts[far], "calls go to a domain whose trust is suspended")
	m.eu.members[0].command("federation", "resume", m.us.domain)
	// The client has the roots before the instances: it connects to none that it cannot verify yet.
	eventually(t, "calls go to the domain that was resumed", func() error {
		counts, errs := client.next(20)
		for _, e := range errs {
			require.NotContains(t, e, "handshake")
		}
		if counts[far] == 0 {
			return fmt.Errorf("none of 20 calls goes there: %.300s", strings.Join(errs, "; "))
		}
		return nil
	})
	client.goesTo("the other region after trust was resumed", far)
}
