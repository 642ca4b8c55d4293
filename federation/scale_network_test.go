package federation

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// maxInFlight is the number of messages in flight on a simulated stream before its sender blocks.
const maxInFlight = 64

// inFlight is a message in flight, with its time of arrival.
type inFlight struct {
	message *ententev1.PeerMessage
	due     time.Time
}

// direction is one direction of a simulated stream.
type direction struct {
	messages chan inFlight
	latency  time.Duration
	// from and to count the traffic.
	from, to *traffic
}

// pipe is a stream between two clusters, without gRPC and TLS, whose overhead is [streamFraming].
type pipe struct {
	broken chan struct{}
	snap   sync.Once
}

// pipeEnd is one end of a pipe, and implements [wire].
type pipeEnd struct {
	pipe    *pipe
	out, in *direction
	done    sync.Once
}

func newPipe(a, b *traffic, latency time.Duration) (*pipeEnd, *pipeEnd) {
	p := &pipe{broken: make(chan struct{})}
	there := &direction{make(chan inFlight, maxInFlight), latency, a, b}
	back := &direction{make(chan inFlight, maxInFlight), latency, b, a}
	return &pipeEnd{pipe: p, out: there, in: back}, &pipeEnd{pipe: p, out: back, in: there}
}

func (e *pipeEnd) Send(m *ententev1.PeerMessage) error {
	select {
	case <-e.pipe.broken:
		return io.EOF
	default:
	}
	kind, bytes := kindOf(m)
	select {
	case e.out.messages <- inFlight{m, time.Now().Add(e.out.latency)}:
		e.out.from.count(kind, 1, bytes)
		e.out.to.count(kind, 1, bytes)
		return nil
	case <-e.pipe.broken:
		return io.EOF
	}
}

func (e *pipeEnd) Recv() (*ententev1.PeerMessage, error) {
	select {
	case p, ok := <-e.in.messages:
		if !ok {
			return nil, io.EOF
		}
		if wait := time.Until(p.due); wait > 0 {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-e.pipe.broken:
				return nil, errors.New("the connection broke")
			}
		}
		return p.message, nil
	case <-e.pipe.broken:
		return nil, errors.New("the connection broke")
	}
}

func (e *pipeEnd) Finish() { e.done.Do(func() { close(e.out.messages) }) }

// hangUp breaks the pipe for both ends.
func (e *pipeEnd) hangUp() { e.pipe.snap.Do(func() { close(e.pipe.broken) }) }

// served is an end as gRPC's server passes it to [PeerService.Exchange].
type served struct {
	grpc.ServerStream
	ctx context.Context
	end *pipeEnd
}

func (s *served) Context() context.Context                 { return s.ctx }
func (s *served) Send(r *ententev1.ExchangeResponse) error { return s.end.Send(r.GetMessage()) }
func (s *served) Recv() (*ententev1.ExchangeRequest, error) {
	m, err := s.end.Recv()
	return &ententev1.ExchangeRequest{Message: m}, err
}

// calledBy returns the context of a call by a member of a cluster.
func calledBy(ctx context.Context, home spiffeid.TrustDomain, member string) context.Context {
	return access.WithCaller(ctx, access.SVIDCaller(spiffeid.RequireFromPath(home, grant.MemberPath+member)))
}

// line is a connection for a poll, from a cluster to the endpoint of another one. Bytes arrive after the latency. They
// are counted when the line is closed, by the result of the poll.
type line struct {
	bytes atomic.Int64
	kind  atomic.Value
	a, b  net.Conn // in the middle
}

func newLine(latency time.Duration, closed func(l *line, kind string, bytes int)) (l *line, client, server net.Conn) {
	l = &line{}
	l.kind.Store(kindBroken)
	client, l.a = net.Pipe()
	l.b, server = net.Pipe()
	var work sync.WaitGroup
	work.Go(func() { l.carry(l.a, l.b, latency) })
	work.Go(func() { l.carry(l.b, l.a, latency) })
	go func() {
		work.Wait()
		closed(l, l.kind.Load().(string), int(l.bytes.Load()))
	}()
	return l, client, &lineEnd{server, l}
}

// cut closes both ends of a line.
func (l *line) cut() { _, _ = l.a.Close(), l.b.Close() }

// lineEnd is the server's end, at which the kind of the response is known.
type lineEnd struct {
	net.Conn
	line *line
}

// carry copies bytes in one direction.
func (l *line) carry(from, to net.Conn, latency time.Duration) {
	type chunk struct {
		bytes []byte
		due   time.Time
	}
	chunks := make(chan chunk, 64)
	go func() {
		defer close(chunks)
		for {
			buffer := make([]byte, 8<<10)
			n, err := from.Read(buffer)
			if n > 0 {
				l.bytes.Add(int64(n))
				chunks <- chunk{buffer[:n], time.Now().Add(latency)}
			}
			if err != nil {
				return
			}
		}
	}()
	for c := range chunks {
		<-time.After(time.Until(c.due))
		if _, err := to.Write(c.bytes); err != nil {
			_ = from.Close() // ends its reader
		}
	}
	_ = to.Close() // all bytes are copied
}

// lines is the listener of all endpoints.
type lines struct {
	arriving chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (l *lines) Accept() (net.Conn, error) {
	select {
	case c := <-l.arriving:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *lines) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *lines) Addr() net.Addr { return &net.TCPAddr{} }
