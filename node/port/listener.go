package port

import (
	"net"
	"sync"
)

// listener delivers the verified connections of one protocol to its server.
type listener struct {
	address net.Addr
	conns   chan *Conn
	once    sync.Once
	done    chan struct{}
}

func newListener(address net.Addr) *listener {
	return &listener{address: address, conns: make(chan *Conn), done: make(chan struct{})}
}

// Accept waits for the next verified connection, which is a [*Conn].
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends this protocol. The others continue.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.address }
