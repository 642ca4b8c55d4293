package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// nameServer serves one name with IPv4 addresses over UDP until the test ends, and returns its own address. Every other
// question has an empty answer.
func nameServer(t *testing.T, name string, addresses ...string) string {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	go func() {
		defer close(done)
		for buffer := make([]byte, 1500); ; {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buffer[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Authoritative, m.Additionals = true, true, nil
			q := m.Questions[0]
			if q.Type == dnsmessage.TypeA && q.Name.String() == name+"." {
				for _, address := range addresses {
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
						Body:   &dnsmessage.AResource{A: netip.MustParseAddr(address).As4()},
					})
				}
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

// sharedPort returns a port that is free at all addresses, as are the two that follow.
func sharedPort(t *testing.T, addresses ...string) (port int) {
	t.Helper()
	eventually(t, "ports are free", func() error {
		first, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.ParseIP(addresses[0])})
		if err != nil {
			return err
		}
		port = first.Addr().(*net.TCPAddr).Port
		_ = first.Close()
		for _, address := range addresses {
			for n := range 3 {
				l, err := net.Listen("tcp4", fmt.Sprintf("%s:%d", address, port+n))
				if err != nil {
					return err
				}
				_ = l.Close()
			}
		}
		return nil
	})
	return port
}

// TestClientsFindMembersByName: gRPC finds all members behind cluster.dns_name, verifies that name in the SVID of each,
// and goes on at another one when its member dies.
func TestClientsFindMembersByName(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("left out: only Linux has all of 127.0.0.0/8 as loopback addresses")
	}
	const name = "members.eu.example.org"
	ips := []string{"127.0.0.41", "127.0.0.42", "127.0.0.43"}
	port := sharedPort(t, ips...)
	c := &cluster{t: t, name: "eu", domain: "eu.example.org", extra: quick, dnsName: name}
	c.host = func(number int) host {
		dir, err := os.MkdirTemp("", "e2e-") // short, as that of a socket must be
		require.NoError(t, err)
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return host{dir: dir, ip: ips[number], port: port}
	}
	c.form(len(ips))
	m := &mesh{t: t, eu: c, us: c, names: nameServer(t, name, ips...)}
	ports := freePorts(t, 2)
	own, near := ports[0], ports[1]
	m.server(c, "a", own)
	m.server(c, "b", near)
	m.grant(c, "/caller")
	path := m.bootstrap(c, m.folder(c, "/caller"), "eu-region/a")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(text), fmt.Sprintf(`"dns://%s/%s:%d"`, m.names, name, port))
	client := m.child(childClient, "client", path, "xds:///greeter")
	client.goesTo("its own zone", own)

	survivor := c.members[2]
	for _, victim := range c.members[:2] {
		victim.kill()
		survivor.attempt("has no instance at", "service", "deregister", "greeter", "--endpoint", own)
		client.goesTo("what is left after a removal", near)
		survivor.attempt("", "service", "register", "greeter", "--endpoint", own, "--locality", "eu-region/a",
			"--spiffe-id", "spiffe://eu.example.org/greeter/a")
		client.goesTo("a new instance", own)
		c.start(victim)
	}
}
