package cache

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
)

// stored is what outlives the process. It has private keys.
type stored struct {
	Entries    []storedEntry     `json:"entries"`
	Bundles    map[string][]byte `json:"bundles"`
	Distrusted []string          `json:"distrusted"`
}

// storedEntry is an entry with its X509-SVID, if that was signed. JWT-SVIDs are not stored: they live for minutes.
type storedEntry struct {
	Entry     []byte    `json:"entry"`
	Chain     []byte    `json:"chain,omitempty"`
	Key       []byte    `json:"key,omitempty"`
	Authority string    `json:"authority,omitempty"`
	Etag      string    `json:"etag,omitempty"`
	At        time.Time `json:"at"`
}

// Store returns the state for [Cache.Restore], or nil before the entries have arrived. It has private keys. States are
// equal if nothing has changed.
func (c *Cache) Store() ([]byte, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.known {
		return nil, nil
	}
	s := stored{Bundles: map[string][]byte{}, Distrusted: slices.Sorted(maps.Keys(c.distrusted))}
	for td, b := range c.bundles {
		s.Bundles[td] = b.Marshal()
	}
	for _, id := range slices.Sorted(maps.Keys(c.entries)) {
		h := c.entries[id]
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(h.entry)
		if err != nil {
			return nil, fmt.Errorf("encode the entry %s: %w", id, err)
		}
		e := storedEntry{Entry: raw, Authority: h.authority, Etag: h.etag, At: h.at}
		if h.svid != nil {
			var chain [][]byte
			for _, cert := range h.svid.Certificates {
				chain = append(chain, cert.Raw)
			}
			e.Chain = bytes.Join(chain, nil)
			if e.Key, err = x509.MarshalPKCS8PrivateKey(h.svid.PrivateKey); err != nil {
				return nil, fmt.Errorf("encode the key of %s: %w", h.svid.ID, err)
			}
		}
		s.Entries = append(s.Entries, e)
	}
	return json.Marshal(s)
}

// Restore takes over a state of [Cache.Store], before the cache runs. What the cluster sends later replaces it.
func (c *Cache) Restore(content []byte) error {
	var s stored
	if err := json.Unmarshal(content, &s); err != nil {
		return fmt.Errorf("read the stored identities: %w", err)
	}
	entries := map[string]*held{}
	for _, stored := range s.Entries {
		h := &held{
			entry: &ententev1.Entry{}, authority: stored.Authority, etag: stored.Etag, at: stored.At,
			misses: rate.NewLimiter(entryMissRate, entryMissBurst),
		}
		if err := proto.Unmarshal(stored.Entry, h.entry); err != nil {
			return fmt.Errorf("read a stored entry: %w", err)
		}
		if len(stored.Chain) > 0 {
			svid, err := x509svid.ParseRaw(stored.Chain, stored.Key)
			if err != nil || svid.ID.String() != h.entry.GetSpiffeId() {
				return fmt.Errorf("read the stored SVID of entry %s: %w", h.entry.GetId(), err)
			}
			h.svid = svid
		}
		entries[h.entry.GetId()] = h
	}
	bundles := map[string]*bundle.Bundle{}
	for name, document := range s.Bundles {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return fmt.Errorf("read the stored bundles: %w", err)
		}
		if bundles[name], _, err = bundle.Parse(td, document); err != nil {
			return fmt.Errorf("read the stored bundle of %s: %w", name, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries, c.bundles, c.known, c.distrusted = entries, bundles, true, map[string]bool{}
	for _, id := range s.Distrusted {
		c.distrusted[id] = true
	}
	c.notify()
	return nil
}
