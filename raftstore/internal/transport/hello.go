package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Hello is how a member presents itself on each connection, before any message of Raft.
type Hello struct {
	// Server is the Raft ID of the member.
	Server string
	// Start counts the starts of the member, and Run tells apart two starts of one number.
	Start, Run uint64
	// Last is the index of the last entry in its log, and Applied a revision that it has published.
	Last, Applied uint64
}

// Handshake is how this member takes part in the handshakes of its connections.
type Handshake struct {
	// Await returns once this member can take part, or an error after a limit.
	Await func(limit time.Duration) error
	// Verify returns an error if the other end of a connection is not the server that it presents itself as.
	Verify func(c net.Conn, server string) error
	// Own returns how this member presents itself now.
	Own func() Hello
	// Judge returns why the other member must take no part in Raft, or nil. The text is for its operator.
	Judge func(Hello) error
	// Refused is called with the other member and its reason when that refuses this one.
	Refused func(by, reason string)
}

const (
	helloMagic = "entente-raft-hello\x01"
	// maxServer and maxReason bound what the other end sends.
	maxServer = 512
	maxReason = 1024
)

// ErrRefused is returned for a connection that either end refuses.
var ErrRefused = errors.New("refused by the members' handshake")

// dialed runs the handshake on a connection that this member has opened: it sends its hello, receives that of the other
// end together with its verdict, and sends its own verdict.
func (h Handshake) dialed(c net.Conn, limit time.Duration) error {
	return h.within(c, limit, func() error {
		if err := writeHello(c, h.Own()); err != nil {
			return err
		}
		other, err := h.readHello(c)
		if err != nil {
			return err
		}
		reason, err := readText(c, maxReason)
		if err != nil {
			return err
		}
		if reason != "" {
			h.Refused(other.Server, reason)
			return fmt.Errorf("%w: member %s: %s", ErrRefused, other.Server, reason)
		}
		return h.decide(c, other)
	})
}

// accepted runs the handshake on a connection that another member has opened.
func (h Handshake) accepted(c net.Conn, limit time.Duration) error {
	return h.within(c, limit, func() error {
		other, err := h.readHello(c)
		if err != nil {
			return err
		}
		if err := writeHello(c, h.Own()); err != nil {
			return err
		}
		if err := h.decide(c, other); err != nil {
			return err
		}
		reason, err := readText(c, maxReason)
		if err != nil {
			return err
		}
		if reason != "" {
			h.Refused(other.Server, reason)
			return fmt.Errorf("%w: member %s: %s", ErrRefused, other.Server, reason)
		}
		return nil
	})
}

// decide sends the verdict on the other member, and returns it.
func (h Handshake) decide(c net.Conn, other Hello) error {
	verdict := h.Judge(other)
	if verdict == nil {
		return writeText(c, "")
	}
	return errors.Join(fmt.Errorf("%w: %w", ErrRefused, verdict), writeText(c, verdict.Error()))
}

func (h Handshake) within(c net.Conn, limit time.Duration, run func() error) error {
	if err := h.Await(limit / 2); err != nil {
		return fmt.Errorf("handshake of members: %w", err)
	}
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if err := run(); err != nil {
		return fmt.Errorf("handshake of members: %w", err)
	}
	return c.SetDeadline(time.Time{})
}

func writeHello(w io.Writer, h Hello) error {
	b := append(make([]byte, 0, len(helloMagic)+4*8), helloMagic...)
	for _, n := range []uint64{h.Start, h.Run, h.Last, h.Applied} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	_, err := w.Write(appendText(b, h.Server))
	return err
}

func (h Handshake) readHello(c net.Conn) (Hello, error) {
	other, err := decodeHello(c)
	if err == nil {
		err = h.Verify(c, other.Server)
	}
	return other, err
}

func decodeHello(r io.Reader) (h Hello, err error) {
	b := make([]byte, len(helloMagic)+4*8)
	if _, err := io.ReadFull(r, b); err != nil {
		return h, err
	}
	if string(b[:len(helloMagic)]) != helloMagic {
		return h, errors.New("the other end does not begin with a handshake; does it run this version?")
	}
	for i, n := range []*uint64{&h.Start, &h.Run, &h.Last, &h.Applied} {
		*n = binary.BigEndian.Uint64(b[len(helloMagic)+8*i:])
	}
	h.Server, err = readText(r, maxServer)
	return h, err
}

func appendText(b []byte, text string) []byte {
	text = text[:min(len(text), maxReason)]
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...) //nolint:gosec // at most maxReason
}

func writeText(w io.Writer, text string) error {
	_, err := w.Write(appendText(nil, text))
	return err
}

func readText(r io.Reader, limit int) (string, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return "", err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n > limit {
		return "", fmt.Errorf("a text of the handshake has %d bytes, and the limit is %d", n, limit)
	}
	text := make([]byte, n)
	_, err := io.ReadFull(r, text)
	return string(text), err
}

// greetedConn is an accepted connection. Its handshake runs with the first read, in the goroutine that serves the
// connection, so that a silent one delays no other.
type greetedConn struct {
	net.Conn
	handshake Handshake
	once      sync.Once
	err       error
}

// Read implements net.Conn.
func (c *greetedConn) Read(b []byte) (int, error) {
	c.once.Do(func() { c.err = c.handshake.accepted(c.Conn, rpcTimeout) })
	if c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(b)
}
