package bundle

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Bounds of a bundle map. A cluster that attests to 10,000 domains writes some 20 MiB.
const (
	MaxMapBytes   = 64 << 20
	MaxMapDomains = 20_000
)

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

// MapEntry is the bundle of a domain in a map: a document in strict form without refresh hint, and the hint, which a
// map leaves out. [NewMapEntry] makes one.
type MapEntry struct {
	TrustDomain spiffeid.TrustDomain
	Document    []byte
	RefreshHint *time.Duration
}

// NewMapEntry returns the entry of a bundle.
func NewMapEntry(b *Bundle) (MapEntry, error) {
	c := b.content
	c.RefreshHint = nil
	document, err := marshalDocument(c)
	return MapEntry{TrustDomain: b.td, Document: document, RefreshHint: b.content.RefreshHint}, err
}

// Alone returns the SPIFFE bundle document of the entry, as it is outside of a map: with its refresh hint.
func (v MapEntry) Alone() []byte {
	if v.RefreshHint == nil {
		return v.Document
	}
	at := bytes.Index(v.Document, []byte(`"keys":`)) // in strict form only the sequence, a number, is before it
	hint := fmt.Appendf(nil, `"spiffe_refresh_hint":%d,`, *v.RefreshHint/time.Second)
	return slices.Concat(v.Document[:at], hint, v.Document[at:])
}

// MarshalEntries returns the map of entries, by name. It sorts entries, and fails if two of them have one domain.
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
