package bundle

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Bounds of a bundle map. A cluster that vouches for 10,000 domains writes some 20 MiB.
const (
	MaxMapBytes   = 64 << 20
	MaxMapDomains = 20_000
)

// ParseMap reads a SPIFFE bundle map: all of it or, if any part is refused, nothing. An empty map is valid.
func ParseMap(data []byte) (map[spiffeid.TrustDomain]*Bundle, []Ignored, error) {
	bundles, ignored, err := parseMap(data)
	if err != nil {
		return nil, nil, fmt.Errorf("bundle map: %w", err)
	}
	return bundles, ignored, nil
}

func parseMap(data []byte) (map[spiffeid.TrustDomain]*Bundle, []Ignored, error) {
	if len(data) > MaxMapBytes {
		return nil, nil, fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrTooLarge, len(data), MaxMapBytes)
	}
	if err := parseText(data); err != nil {
		return nil, nil, err
	}
	var split splitter
	var left leftOut
	var domains json.RawMessage
	err := split.object(data, "the map", maxMembers, func(name string, value json.RawMessage) error {
		if name == "trust_domains" {
			domains = value
		} else {
			left.add(Ignored{Kind: IgnoredParameter, Key: -1, Detail: "unknown parameter " + clip(name)})
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if domains == nil || kind(domains) == "null" {
		return nil, nil, fmt.Errorf("%w: trust_domains must be present; it may be empty", ErrNoTrustDomains)
	}
	bundles := make(map[spiffeid.TrustDomain]*Bundle)
	err = split.object(domains, "trust_domains", MaxMapDomains, func(name string, value json.RawMessage) error {
		b, ignored, err := parseMapEntry(name, value)
		if err != nil {
			return err
		}
		for _, i := range ignored {
			i.TrustDomain = b.td.Name()
			left.add(i)
		}
		bundles[b.td] = b
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return bundles, left.list(), nil
}

func parseMapEntry(name string, document []byte) (*Bundle, []Ignored, error) {
	td, err := ParseTrustDomain(name)
	if err != nil {
		return nil, nil, err
	}
	b, ignored, err := Parse(td, document)
	if err != nil || b.content.RefreshHint == nil {
		return b, ignored, err
	}
	b, err = b.With(func(c *Content) { c.RefreshHint = nil })
	return b, append(ignored, Ignored{Kind: IgnoredHint, Key: -1, Detail: "a bundle in a map has no refresh hint of its own"}), err
}

// MarshalMap writes the SPIFFE bundle map of bundles, by name, without their refresh hints: the same bytes for the
// same bundles in any order. It fails if two are of one domain.
func MarshalMap(bundles []*Bundle) ([]byte, error) {
	sorted := slices.SortedFunc(slices.Values(bundles), func(x, y *Bundle) int { return cmp.Compare(x.td.Name(), y.td.Name()) })
	var buf bytes.Buffer
	buf.WriteString(`{"trust_domains":{`)
	for i, b := range sorted {
		if i > 0 {
			if b.td == sorted[i-1].td {
				return nil, fmt.Errorf("bundle map: %w: %s", ErrDuplicateTrustDomain, b.td)
			}
			buf.WriteByte(',')
		}
		fmt.Fprintf(&buf, "%q:", b.td.Name()) // its characters need no escape
		c := b.content
		c.RefreshHint = nil
		document, err := marshalDocument(c)
		if err != nil {
			return nil, fmt.Errorf("bundle map: %s: %w", b.td, err)
		}
		buf.Write(document)
	}
	buf.WriteString("}}")
	return buf.Bytes(), nil
}
