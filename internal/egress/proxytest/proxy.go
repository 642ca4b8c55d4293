// Package proxytest is an HTTP proxy that connects by CONNECT, for tests.
package proxytest

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Proxy is a proxy that runs until the end of its test.
type Proxy struct {
	// URL is its address, as http://HOST:PORT.
	URL string

	t        testing.TB
	listener net.Listener
	running  sync.WaitGroup

	mu        sync.Mutex
	refuse    int
	connected []string
	names     map[string]string
	open      map[net.Conn]bool
	header    http.Header
}

// New returns a proxy. names are addresses to connect to in place of others.
func New(t testing.TB, names map[string]string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &Proxy{URL: "http://" + l.Addr().String(), t: t, listener: l, names: names, open: map[net.Conn]bool{}}
	p.running.Go(p.serve)
	t.Cleanup(func() {
		_ = l.Close()
		p.Break()
		p.running.Wait()
	})
	return p
}

// Refuse makes the proxy answer with a status. 0 makes it connect again.
func (p *Proxy) Refuse(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = status
}

// Break closes all connections.
func (p *Proxy) Break() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		_ = c.Close()
	}
}

// Connected returns the addresses that the proxy has connected to, in order.
func (p *Proxy) Connected() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.connected...)
}

// Header returns the header of the last request.
func (p *Proxy) Header() http.Header {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.header
}

func (p *Proxy) serve() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.handle(c) })
	}
}

func (p *Proxy) track(c net.Conn) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[c] = true
	return func() {
		_ = c.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, c)
	}
}

func (p *Proxy) handle(c net.Conn) {
	defer p.track(c)()
	request, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	p.mu.Lock()
	refuse, address := p.refuse, request.Host
	p.header = request.Header
	if to, ok := p.names[address]; ok {
		address = to
	}
	p.mu.Unlock()
	if request.Method != http.MethodConnect {
		refuse = http.StatusMethodNotAllowed
	}
	var to net.Conn
	if refuse == 0 {
		if to, err = net.Dial("tcp", address); err != nil {
			refuse = http.StatusBadGateway
		}
	}
	if refuse != 0 {
		_ = (&http.Response{StatusCode: refuse, ProtoMajor: 1, ProtoMinor: 1}).Write(c)
		return
	}
	defer p.track(to)()
	p.mu.Lock()
	p.connected = append(p.connected, request.Host)
	p.mu.Unlock()
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{c, to}, {to, c}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = pair[0].Close()
		})
	}
	both.Wait()
}
