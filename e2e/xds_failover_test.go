package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// attempt repeats a command at a member until it succeeds: an election may be under way. Its outcome can be unknown
// before, so that what it says about an earlier attempt is a success as well.
func (p *process) attempt(done string, args ...string) {
	p.t.Helper()
	eventually(p.t, strings.Join(args, " "), func() error {
		cmd := exec.Command(binary, append(args, "--socket", filepath.Join(p.dir, "data", "admin.sock"))...)
		out, err := cmd.CombinedOutput()
		if err != nil && (done == "" || !strings.Contains(string(out), done)) {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// TestClientsOutliveTheirMember: whichever member the relay of one gRPC client and the agent of another use, and
// whether it dies or freezes, a removal, a new instance and a suspension reach the clients from the members that are
// left.
func TestClientsOutliveTheirMember(t *testing.T) {
	script := nodeClient(t)
	m := &mesh{t: t, eu: newCluster(t, "eu", 3, quick), us: newCluster(t, "us", 1, quick)}
	m.federate()
	ports := freePorts(t, 3)
	own, near, far := ports[0], ports[1], ports[2]
	m.server(m.eu, "a", own)
	m.server(m.eu, "b", near)
	m.server(m.us, "a", far)
	m.grant(m.eu, "/caller")
	dir := m.folder(m.eu, "/caller")
	socket := filepath.Join(t.TempDir(), "xds.sock")
	var addresses []string
	for _, p := range m.eu.members[:2] { // of the members that the clients know, one is left in each round
		addresses = append(addresses, p.api)
	}
	start(t, "relay", exec.Command(binary, "xds", "relay", "--listen", socket, "--dir", dir,
		"--address", strings.Join(addresses, ",")))
	eventually(t, "the relay listens", func() error {
		_, err := os.Stat(socket)
		return err
	})
	asNode := m.bootstrap(m.eu, dir, "eu-region/a", "--client", "node", "--relay", socket)
	node := exec.Command("node", script, "xds:///greeter")
	node.Env = append(os.Environ(), "GRPC_XDS_BOOTSTRAP="+asNode)
	served := agent(t, m.eu, "node-1", addresses, "spiffe://"+m.eu.domain+"/caller")
	asGo := m.bootstrap(m.eu, m.agentFolder(served), "eu-region/a", "--agent", served)
	clients := []*program{
		start(t, "the client of the relay, in Node", node),
		m.child(childClient, "the client of the agent, in Go", asGo, "xds:///greeter"),
	}
	for _, c := range clients {
		c.goesTo("its own zone", own)
	}
	for round, test := range []struct {
		victim int // relay and agent use the first member in their list that they reach, and stay there
		signal syscall.Signal
	}{{0, syscall.SIGKILL}, {1, syscall.SIGSTOP}, {0, syscall.SIGSTOP}, {1, syscall.SIGKILL}} {
		victim, survivor := m.eu.members[test.victim], m.eu.members[2]
		if test.signal == syscall.SIGKILL {
			victim.kill()
		} else {
			victim.send(test.signal)
		}
		at := time.Now()
		reach := func(what string, addresses ...string) {
			for _, c := range clients {
				c.goesTo(what, addresses...)
			}
			t.Logf("round %d, %s of %s: the clients call %s after %s", round, test.signal, victim.id, what,
				time.Since(at).Round(time.Millisecond))
		}
		register := func(address, zone, health string) {
			survivor.attempt("", "service", "register", "greeter", "--endpoint", address,
				"--locality", "eu-region/"+zone, "--spiffe-id", "spiffe://eu.example.org/greeter/"+zone,
				"--health", health)
		}
		survivor.attempt("has no instance at", "service", "deregister", "greeter", "--endpoint", own)
		at = time.Now()
		reach("what is left after a removal", near)
		register(own, "a", "healthy")
		at = time.Now()
		reach("a new instance", own)
		register(own, "a", "unhealthy")
		register(near, "b", "unhealthy")
		reach("the other domain", far)
		survivor.attempt("suspended", "federation", "suspend", m.us.domain)
		at = time.Now()
		for _, c := range clients {
			eventually(t, c.name+" calls no suspended domain", func() error {
				if counts, _ := c.next(20); counts[far] > 0 {
					return fmt.Errorf("%d of 20 calls go there", counts[far])
				}
				return nil
			})
		}
		t.Logf("round %d: the suspension arrives after %s", round, time.Since(at).Round(time.Millisecond))
		survivor.attempt("active", "federation", "resume", m.us.domain)
		register(own, "a", "healthy")
		register(near, "b", "healthy")
		reach("its own zone again", own)
		if test.signal == syscall.SIGKILL {
			m.eu.start(victim)
		} else {
			victim.send(syscall.SIGCONT)
			victim.waitReady()
		}
	}
}
