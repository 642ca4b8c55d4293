package bundle

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle/internal/refusal"
	"github.com/ententehq/entente/bundle/internal/strictjson"
)

// maxMapParameters bounds the members of a map that are not trust_domains.
const maxMapParameters = 64

// ReadMap reads a SPIFFE bundle map from a stream, and calls visit with the document of each domain in it. visit parses
// the document by [ParseMapped], and copies what it keeps. However large the map is, no more than the document of one
// domain is in memory at a time. A map is valid as a whole or not at all: the caller discards the documents unless
// ReadMap returns nil. An error of visit ends the reading and is returned. An empty map is valid.
func ReadMap(r io.Reader, visit func(td spiffeid.TrustDomain, document []byte) error) (domains int, err error) {
	m := &mapReader{gate: &gate{from: r}, visit: visit, seen: make(map[[16]byte]struct{})}
	m.dec = json.NewDecoder(m.gate)
	if err := m.read(); err != nil {
		return 0, fmt.Errorf("bundle map: %w", err)
	}
	return len(m.seen), nil
}

// ParseMapped parses the document of one domain in a map. The refresh hint of a bundle in a map is ignored.
func ParseMapped(td spiffeid.TrustDomain, document []byte) (*Bundle, []Ignored, error) {
	b, ignored, err := Parse(td, document)
	if err != nil || b.content.RefreshHint == nil {
		return b, ignored, err
	}
	ignored = append(
		ignored,
		Ignored{Kind: IgnoredHint, Key: -1, Detail: "a bundle in a map has no refresh hint of its own"},
	)
	b, err = b.With(func(c *Content) { c.RefreshHint = nil })
	return b, ignored, err
}

// mapReader reads one map.
type mapReader struct {
	gate  *gate
	dec   *json.Decoder
	visit func(td spiffeid.TrustDomain, document []byte) error
	// seen are the domains so far, by a part of the hash of their names, so that a map of long names needs no more
	// memory.
	seen map[[16]byte]struct{}
	raw  json.RawMessage
}

func (m *mapReader) read() error {
	if err := m.open("the map"); err != nil {
		return err
	}
	members := map[string]bool{}
	for m.dec.More() {
		name, err := m.name()
		if err != nil {
			return err
		}
		switch {
		case members[name]:
			return fmt.Errorf("%w: the map has %s twice", strictjson.ErrDuplicateName, refusal.Clip(name))
		case len(members) > maxMapParameters:
			return fmt.Errorf("%w: the map has more than %d parameters", ErrTooLarge, maxMapParameters)
		}
		members[name] = true
		if name == "trust_domains" {
			err = m.domains()
		} else {
			err = m.value(name)
		}
		if err != nil {
			return err
		}
	}
	if err := m.close(); err != nil {
		return err
	}
	if _, err := m.dec.Token(); err == nil {
		return fmt.Errorf("%w: there is something behind its end", strictjson.ErrMalformed)
	} else if !errors.Is(err, io.EOF) {
		return m.broken(err)
	}
	if !members["trust_domains"] {
		return fmt.Errorf("%w: trust_domains must be present; it may be empty", ErrNoTrustDomains)
	}
	return nil
}

func (m *mapReader) domains() error {
	if err := m.open("trust_domains"); err != nil {
		return err
	}
	for m.dec.More() {
		name, err := m.name()
		if err != nil {
			return err
		}
		td, err := ParseTrustDomain(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256([]byte(name))
		key := [16]byte(sum[:16])
		if _, twice := m.seen[key]; twice {
			return fmt.Errorf("%w: trust_domains has %s twice", strictjson.ErrDuplicateName, refusal.Clip(name))
		}
		if len(m.seen) == MaxMapDomains {
			return fmt.Errorf("%w: it has more than %d trust domains", ErrTooLarge, MaxMapDomains)
		}
		m.seen[key] = struct{}{}
		if err := m.value(name); err != nil {
			return err
		}
		if err := m.visit(td, m.raw); err != nil {
			return err
		}
	}
	return m.close()
}

// open reads the beginning of an object.
func (m *mapReader) open(what string) error {
	m.gate.open(what)
	token, err := m.dec.Token()
	if err != nil {
		return m.broken(err)
	}
	if token == nil && what == "trust_domains" {
		return fmt.Errorf("%w: trust_domains must be present; it may be empty", ErrNoTrustDomains)
	}
	if token != json.Delim('{') {
		return fmt.Errorf("%w: %s is not an object", strictjson.ErrMalformed, what)
	}
	return nil
}

func (m *mapReader) close() error {
	m.gate.open("the map")
	_, err := m.dec.Token() // anything but the end of the object is a syntax error
	return m.broken(err)
}

func (m *mapReader) name() (string, error) {
	m.gate.open("a name in the map")
	token, err := m.dec.Token()
	if err != nil {
		return "", m.broken(err)
	}
	name, _ := token.(string)
	return name, nil
}

// value reads one value into raw.
func (m *mapReader) value(name string) error {
	m.gate.open("the value of " + refusal.Clip(name))
	m.raw = m.raw[:0]
	if err := m.dec.Decode(&m.raw); err != nil {
		return m.broken(err)
	}
	if len(m.raw) > MaxDocumentBytes {
		return fmt.Errorf(
			"%w: the value of %s has %d bytes, at most %d are allowed",
			ErrTooLarge,
			refusal.Clip(name),
			len(m.raw),
			MaxDocumentBytes,
		)
	}
	return nil
}

// broken returns the error of a read: the network's, or that the text is not JSON.
func (m *mapReader) broken(err error) error {
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return nil
	case m.gate.failed != nil:
		return m.gate.failed
	case errors.As(err, &syntax):
		return fmt.Errorf("%w: it is not JSON, byte %d: %w", strictjson.ErrMalformed, syntax.Offset, err)
	}
	return fmt.Errorf("%w: it is not JSON: %w", strictjson.ErrMalformed, err)
}

// gate bounds the bytes that a decoder reads for one value, since it holds a whole value in memory, and for the whole
// map.
type gate struct {
	from        io.Reader
	left, total int64
	what        string
	// rest is the beginning of a character whose end was not read yet: a decoder passes over invalid UTF-8.
	rest []byte
	// failed is the reason why nothing more is read, apart from the end.
	failed error
}

// gateRead is the size of one read. It is small, so that few bytes of the next value are held with the present one.
const gateRead = 32 << 10

// open lets the next value pass.
func (g *gate) open(what string) { g.left, g.what = MaxDocumentBytes+2*gateRead, what }

func (g *gate) Read(p []byte) (int, error) {
	switch {
	case g.failed != nil:
		return 0, g.failed
	case g.total > MaxMapBytes:
		g.failed = fmt.Errorf("%w: at most %d bytes are allowed", ErrTooLarge, MaxMapBytes)
		return 0, g.failed
	case g.left <= 0:
		g.failed = fmt.Errorf("%w: %s has more than %d bytes", ErrTooLarge, g.what, MaxDocumentBytes)
		return 0, g.failed
	}
	n, err := g.from.Read(p[:min(len(p), gateRead)])
	g.left -= int64(n)
	g.total += int64(n)
	switch {
	case !g.isText(p[:n]), err != nil && len(g.rest) > 0:
		g.failed = fmt.Errorf("%w: it is not valid UTF-8", strictjson.ErrMalformed)
		return 0, g.failed
	case err != nil && !errors.Is(err, io.EOF):
		g.failed = fmt.Errorf("read the map: %w", err)
	}
	return n, err
}

// isText reports whether the bytes read so far can be UTF-8.
func (g *gate) isText(p []byte) bool {
	text := append(g.rest, p...)
	end := len(text)
	for back := 1; back <= min(len(text), utf8.UTFMax-1); back++ {
		if utf8.RuneStart(text[len(text)-back]) {
			if !utf8.FullRune(text[len(text)-back:]) {
				end = len(text) - back
			}
			break
		}
	}
	g.rest = append([]byte(nil), text[end:]...)
	return utf8.Valid(text[:end])
}
