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
	members, err := parseObject(data, "the map")
	if err != nil {
		return nil, nil, err
	}
	var ignored []Ignored
	var domains json.RawMessage
	for _, m := range members {
		if m.name == "trust_domains" {
			domains = m.value
		} else if len(ignored) < MaxKeys {
			ignored = append(ignored, Ignored{Kind: IgnoredParameter, Key: -1, Detail: "unknown parameter " + clip(m.name)})
		}
	}
	if domains == nil || kind(domains) == "null" {
		return nil, nil, fmt.Errorf("%w: trust_domains must be present; it may be empty", ErrNoTrustDomains)
	}
	entries, err := parseObject(domains, "trust_domains")
	if err != nil {
		return nil, nil, err
	}
	if len(entries) > MaxMapDomains {
		return nil, nil, fmt.Errorf("%w: it has %d trust domains, at most %d are allowed", ErrTooLarge, len(entries), MaxMapDomains)
	}
	bundles := make(map[spiffeid.TrustDomain]*Bundle, len(entries))
	for _, entry := range entries {
		td, err := ParseTrustDomain(entry.name)
		if err != nil {
			return nil, nil, err
		}
		b, left, err := Parse(td, entry.value)
		if err != nil {
			return nil, nil, err
		}
		if b.content.RefreshHint != nil {
			left = append(left, Ignored{Kind: IgnoredHint, Key: -1, Detail: "a bundle in a map has no refresh hint of its own"})
			if b, err = b.With(func(c *Content) { c.RefreshHint = nil }); err != nil {
				return nil, nil, err
			}
		}
		for _, i := range left {
			if len(ignored) < MaxKeys {
				i.TrustDomain = td.Name()
				ignored = append(ignored, i)
			}
		}
		bundles[td] = b
	}
	return bundles, ignored, nil
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
