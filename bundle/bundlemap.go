package bundle

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle/internal/refusal"
	"github.com/ententehq/entente/bundle/internal/strictjson"
)

// Bounds of a bundle map. A cluster that attests to 10,000 domains writes some 20 MiB.
const (
	MaxMapBytes   = 64 << 20
	MaxMapDomains = 20_000
)

// ParseMap reads a SPIFFE bundle map as a whole: if any part is refused, it returns nothing. An empty map is valid.
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
	if err := strictjson.ParseText(data); err != nil {
		return nil, nil, err
	}
	var split strictjson.Splitter
	var left leftOut
	var domains json.RawMessage
	err := split.Object(data, "the map", strictjson.MaxMembers, func(name string, value json.RawMessage) error {
		if name == "trust_domains" {
			domains = value
		} else {
			left.add(Ignored{Kind: IgnoredParameter, Key: -1, Detail: "unknown parameter " + refusal.Clip(name)})
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if domains == nil || strictjson.Kind(domains) == "null" {
		return nil, nil, fmt.Errorf("%w: trust_domains must be present; it may be empty", ErrNoTrustDomains)
	}
	bundles := make(map[spiffeid.TrustDomain]*Bundle)
	err = split.Object(domains, "trust_domains", MaxMapDomains, func(name string, value json.RawMessage) error {
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
	return ParseMapped(td, document)
}

// MarshalMap returns the SPIFFE bundle map of bundles, by name, without their refresh hints. The bytes do not depend on
// the order of bundles. It fails if two bundles have one domain.
func MarshalMap(bundles []*Bundle) ([]byte, error) {
	entries := make([]MapEntry, 0, len(bundles))
	for _, b := range bundles {
		v, err := NewMapEntry(b)
		if err != nil {
			return nil, fmt.Errorf("bundle map: %s: %w", b.td, err)
		}
		entries = append(entries, v)
	}
	return MarshalEntries(entries)
}

// MapEntry is the bundle of a domain in a map: a document in strict form without refresh hint. [NewMapEntry] makes one.
type MapEntry struct {
	TrustDomain spiffeid.TrustDomain
	Document    []byte
}

// NewMapEntry returns the entry of a bundle.
func NewMapEntry(b *Bundle) (MapEntry, error) {
	c := b.content
	c.RefreshHint = nil
	document, err := marshalDocument(c)
	return MapEntry{TrustDomain: b.td, Document: document}, err
}

func MarshalEntries(entries []MapEntry) ([]byte, error) {
	slices.SortFunc(entries, func(x, y MapEntry) int { return cmp.Compare(x.TrustDomain.Name(), y.TrustDomain.Name()) })
	var buf bytes.Buffer
	buf.WriteString(`{"trust_domains":{`)
	for i, entry := range entries {
		if i > 0 {
			if entry.TrustDomain == entries[i-1].TrustDomain {
				return nil, fmt.Errorf("bundle map: %w: %s", ErrDuplicateTrustDomain, entry.TrustDomain)
			}
			buf.WriteByte(',')
		}
		fmt.Fprintf(&buf, "%q:", entry.TrustDomain.Name()) // its characters need no escape
		buf.Write(entry.Document)
	}
	buf.WriteString("}}")
	return buf.Bytes(), nil
}

// FitMap returns the entries that fit into a map, the hosted ones first and then those that a hub attests to, by name,
// and the number of those left out.
func FitMap(hosted, attested []MapEntry) (all []MapEntry, leftOut int) {
	size := 0
	for _, h := range hosted {
		size += h.size()
	}
	slices.SortFunc(attested, func(x, y MapEntry) int {
		return cmp.Compare(x.TrustDomain.Name(), y.TrustDomain.Name())
	})
	all = slices.Clone(hosted)
	for i, v := range attested {
		if size += v.size(); size+64 > MaxMapBytes || len(all) == MaxMapDomains {
			return all, len(attested) - i
		}
		all = append(all, v)
	}
	return all, 0
}

// size returns the bytes of an entry in a map.
func (v MapEntry) size() int { return len(v.TrustDomain.Name()) + len(v.Document) + len(`"":,`) }
