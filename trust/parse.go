package trust

import (
	"container/list"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
)

// The bounds of the cache of parsed bundles. A bundle in memory takes a few times the bytes of its document, and most
// documents have some 2 to 10 KiB. Larger documents than maxKept are not kept, so that a hostile peer cannot fill the
// memory with them.
const (
	maxParsed      = 1024
	maxParsedBytes = 8 << 20 // of documents
	maxKept        = 64 << 10
)

// parsed holds the bundles that were parsed last. It is shared by all stores of the process: entries are found by
// content, so that no revision of any store can meet the bundle of another.
var parsed = newCache(maxParsed, maxParsedBytes, maxKept)

// Parse returns the bundle of a stored row. A document that was parsed recently is not parsed again. Parse fails only
// if the row is nil, was damaged, or was written by something else.
func Parse(row *statev1.Bundle) (*bundle.Bundle, error) {
	if row == nil {
		return nil, errors.New("there is no stored bundle")
	}
	return parsed.get(row.GetTrustDomain(), row.GetDocument())
}

// cache keeps parsed bundles by trust domain and content, and drops those that were not used for longest.
type cache struct {
	maxEntries, maxBytes int
	maxKept              int // bytes of one document

	mu      sync.Mutex
	entries map[cacheKey]*list.Element
	order   *list.List // of cacheEntry; the one used last is in front
	bytes   int        // of the documents
}

type cacheKey struct {
	trustDomain string
	document    [sha256.Size]byte
}

type cacheEntry struct {
	key    cacheKey
	bytes  int
	bundle *bundle.Bundle
}

func newCache(maxEntries, maxBytes, maxKept int) *cache {
	return &cache{
		maxEntries: maxEntries, maxBytes: maxBytes, maxKept: maxKept,
		entries: make(map[cacheKey]*list.Element), order: list.New(),
	}
}

func (c *cache) get(trustDomain string, document []byte) (*bundle.Bundle, error) {
	key := cacheKey{trustDomain, sha256.Sum256(document)}
	if b, ok := c.lookup(key); ok {
		return b, nil
	}
	td, err := bundle.ParseTrustDomain(trustDomain)
	if err != nil {
		return nil, fmt.Errorf("stored bundle: %w", err)
	}
	b, _, err := bundle.Parse(td, document)
	if err != nil {
		return nil, fmt.Errorf("stored bundle: %w", err)
	}
	c.add(cacheEntry{key, len(document), b})
	return b, nil
}

func (c *cache) lookup(key cacheKey) (*bundle.Bundle, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.entries[key]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(element)
	return element.Value.(cacheEntry).bundle, true //nolint:forcetypeassert // the list holds nothing else
}

func (c *cache) add(e cacheEntry) {
	if e.bytes > c.maxKept {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[e.key]; ok {
		return // parsed twice at the same time
	}
	c.entries[e.key] = c.order.PushFront(e)
	for c.bytes += e.bytes; c.order.Len() > c.maxEntries || c.bytes > c.maxBytes; {
		oldest := c.order.Remove(c.order.Back()).(cacheEntry) //nolint:forcetypeassert // the list holds nothing else
		delete(c.entries, oldest.key)
		c.bytes -= oldest.bytes
	}
}
