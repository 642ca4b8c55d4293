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
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// parcelsUnderWay is how many messages a simulated stream holds between its ends before its sender waits.
const parcelsUnderWay = 64

// parcel is a message under way, and when it arrives.
type parcel struct {
	message *ententev1.PeerMessage
	due     time.Time
}

// direction is one direction of a simulated stream.
type direction struct {
	parcels chan parcel
	latency time.Duration
	// from and to take down what passes.
	from, to *traffic
}

// pipe is a stream between two clusters, without gRPC and TLS: what they add is counted by [streamFraming].
type pipe struct {
	broken chan struct{}
	snap   sync.Once
}

// pipeEnd is one end of a pipe. It is a [wire].
type pipeEnd struct {
	pipe    *pipe
	out, in *direction
	done    sync.Once
}

func newPipe(a, b *traffic, latency time.Duration) (*pipeEnd, *pipeEnd) {
	p := &pipe{broken: make(chan struct{})}
	there := &direction{make(chan parcel, parcelsUnderWay), latency, a, b}
	back := &direction{make(chan parcel, parcelsUnderWay), latency, b, a}
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
	case e.out.parcels <- parcel{m, time.Now().Add(e.out.latency)}:
		e.out.from.count(kind, 1, bytes)
		e.out.to.count(kind, 1, bytes)
		return nil
	case <-e.pipe.broken:
		return io.EOF
	}
}

func (e *pipeEnd) Recv() (*ententev1.PeerMessage, error) {
	select {
	case p, ok := <-e.in.parcels:
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

func (e *pipeEnd) Finish() { e.done.Do(func() { close(e.out.parcels) }) }

// hangUp breaks the pipe for both ends.
func (e *pipeEnd) hangUp() { e.pipe.snap.Do(func() { close(e.pipe.broken) }) }

// served is an end as gRPC's server hands it to [PeerService.Exchange].
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

// calledBy is a context of a call that a member of a cluster makes.
func calledBy(ctx context.Context, home spiffeid.TrustDomain, member string) context.Context {
	return access.WithCaller(ctx, access.SVIDCaller(spiffeid.RequireFromPath(home, access.MemberPath+member)))
}

// line is a connection for a poll, from a cluster to another one's endpoint. What is written at one end can be read at
// the other after the latency. All that passes is counted when it is closed, under what the poll brought.
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

// cut ends a line for both of its ends.
func (l *line) cut() { _, _ = l.a.Close(), l.b.Close() }

// lineEnd is the server's end, where it is known what is served.
type lineEnd struct {
	net.Conn
	line *line
}

// carry moves bytes one way.
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
			_ = from.Close() // so that its reader ends
		}
	}
	_ = to.Close() // all has been carried
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
