// Package cache has what the workloads of a node receive: the entries of the agent, an X509-SVID for each, JWT-SVIDs
// that were requested, and the bundles.
//
// The [Cache] has SVIDs signed before a workload needs them, renews them at half of their life, and at once when the
// authority that signed them is no longer trusted or their entry has changed. While no member can be reached everything
// stays as it is, also over a restart with [Cache.Store] and [Cache.Restore]. Readers take the channel of
// [Cache.Changed] first and then the [State] of a workload.
package cache

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
)

// Issuer has SVIDs signed for entries of the agent.
type Issuer interface {
	IssueX509SVIDs(ctx context.Context, requests []*ententev1.EntryX509Request) ([]*ententev1.X509SVIDResult, error)
	IssueJWTSVID(ctx context.Context, entryID string, audience []string) (*ententev1.IssueJWTSVIDResponse, error)
}

// Cache is safe for concurrent use.
type Cache struct {
	issuer Issuer
	logger hclog.Logger
	now    func() time.Time
	wake   chan struct{}

	mu         sync.RWMutex
	changed    chan struct{} // closed at the next change
	entries    map[string]*held
	known      bool // the entries have arrived once
	bundles    map[string]*bundle.Bundle
	distrusted map[string]bool
	kept       int // JWT-SVIDs of all entries
	misses     *rate.Limiter
}

// held is an entry with its SVID.
type held struct {
	entry *ententev1.Entry
	// svid is nil until it was signed. etag is that of the entry by which it was.
	svid      *x509svid.SVID
	authority string
	etag      string
	at        time.Time
	retry     time.Time
	failures  int
	// tokens are the JWT-SVIDs by audience. misses bounds those that are requested from members.
	tokens map[string]*token
	misses *rate.Limiter
}

// Identity is an entry with its SVID, which must not be modified.
type Identity struct {
	Entry *ententev1.Entry
	SVID  *x509svid.SVID
}

// State is what one workload receives.
type State struct {
	// Registered is set if there is an entry for the workload. Its SVID may still be on the way.
	Registered bool
	// Identities are in the order of the entries' creation. The first one is the default.
	Identities []Identity
	// Bundles are those of the identities' trust domains and of those that they federate with, by trust domain.
	Bundles map[string]*bundle.Bundle
}

// New returns an empty cache.
func New(issuer Issuer, logger hclog.Logger) *Cache {
	return &Cache{
		issuer: issuer, logger: logger, now: time.Now, wake: make(chan struct{}, 1), changed: make(chan struct{}),
		entries: map[string]*held{}, bundles: map[string]*bundle.Bundle{},
		misses: rate.NewLimiter(missRate, missBurst),
	}
}

// notify wakes the readers. c.mu is held.
func (c *Cache) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Cache) renew() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Changed returns a channel that is closed at the next change.
func (c *Cache) Changed() <-chan struct{} {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.changed
}

// SetEntries replaces the entries. An SVID stays with its entry while that names the same ID, and is renewed if the
// entry has changed.
func (c *Cache) SetEntries(entries map[string]*ententev1.Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[string]*held, len(entries))
	for id, e := range entries {
		h := c.entries[id]
		if h == nil || h.entry.GetSpiffeId() != e.GetSpiffeId() {
			h = &held{misses: rate.NewLimiter(entryMissRate, entryMissBurst)}
		} else if h.entry.GetEtag() != e.GetEtag() {
			clear(h.tokens)
		}
		h.entry = e
		if h.etag != e.GetEtag() {
			h.retry, h.failures = time.Time{}, 0
		}
		next[id] = h
	}
	c.entries, c.known = next, true
	c.count()
	c.notify()
	c.renew()
}

// SetBundles replaces the bundles.
func (c *Cache) SetBundles(bundles []*bundle.Bundle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[string]*bundle.Bundle, len(bundles))
	for _, b := range bundles {
		next[b.TrustDomain().Name()] = b
	}
	c.bundles = next
	c.notify()
}

// SetDistrusted replaces the authorities whose SVIDs are renewed at once.
func (c *Cache) SetDistrusted(authorities map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.distrusted = authorities
	for _, h := range c.entries {
		if authorities[h.authority] {
			h.retry = time.Time{}
		}
		maps.DeleteFunc(h.tokens, func(_ string, t *token) bool { return authorities[t.authority] })
	}
	c.count()
	c.renew()
}

// Uses reports whether an entry has a selector with a prefix. What no entry needs is not computed.
func (c *Cache) Uses(prefix string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, h := range c.entries {
		if slices.ContainsFunc(h.entry.GetSelectors(), func(s string) bool { return strings.HasPrefix(s, prefix) }) {
			return true
		}
	}
	return false
}

// matching returns the entries for a workload in the order of their creation. c.mu is held.
func (c *Cache) matching(selectors []string) (of []*held) {
	for _, h := range c.entries {
		missing := func(s string) bool { return !slices.Contains(selectors, s) }
		if !slices.ContainsFunc(h.entry.GetSelectors(), missing) {
			of = append(of, h)
		}
	}
	slices.SortFunc(of, func(a, b *held) int {
		if d := a.entry.GetCreateTime().AsTime().Compare(b.entry.GetCreateTime().AsTime()); d != 0 {
			return d
		}
		return strings.Compare(a.entry.GetId(), b.entry.GetId())
	})
	return of
}

// Of returns what a workload with some selectors receives. It waits for nothing. ok is false before the entries have
// arrived.
func (c *Cache) Of(selectors []string) (s State, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s.Bundles = map[string]*bundle.Bundle{}
	add := func(td string) {
		if b := c.bundles[td]; b != nil {
			s.Bundles[td] = b
		}
	}
	for _, h := range c.matching(selectors) {
		s.Registered = true
		id := h.entry.GetSpiffeId()
		own := strings.SplitN(strings.TrimPrefix(id, "spiffe://"), "/", 2)[0]
		add(own)
		if h.entry.GetFederatesWithAll() {
			for td := range c.bundles {
				add(td)
			}
		}
		for _, td := range h.entry.GetFederatesWith() {
			add(td)
		}
		// An SVID without the bundle that verifies it is of no use: the bundle is on the way, or its domain is gone.
		if h.svid != nil && s.Bundles[own] != nil && c.now().Before(h.svid.Certificates[0].NotAfter) {
			s.Identities = append(s.Identities, Identity{Entry: h.entry, SVID: h.svid})
		}
	}
	return s, c.known
}

const (
	// batch is how many SVIDs are requested together: fewer than the API allows, so that one call is short.
	batch = 50
	// callTimeout bounds a call to a member.
	callTimeout = 10 * time.Second
	firstRetry  = 200 * time.Millisecond
	lastRetry   = 30 * time.Second
)

// due returns when the SVID of an entry is to be signed. c.mu is held.
func (c *Cache) due(h *held) time.Time {
	if h.svid == nil || h.etag != h.entry.GetEtag() || c.distrusted[h.authority] {
		return h.retry
	}
	half := h.at.Add(h.svid.Certificates[0].NotAfter.Sub(h.at) / 2)
	if half.Before(h.retry) {
		return h.retry
	}
	return half
}

// Run has SVIDs signed and renewed until ctx ends.
func (c *Cache) Run(ctx context.Context) error {
	for {
		c.mu.RLock()
		now, next := c.now(), c.now().Add(time.Minute) // timers do not follow a clock that is set
		var ids []string
		for id, h := range c.entries {
			if at := c.due(h); at.After(now) {
				if at.Before(next) {
					next = at
				}
			} else if len(ids) < batch {
				ids = append(ids, id)
			}
		}
		c.mu.RUnlock()
		if len(ids) > 0 {
			c.sign(ctx, ids)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		timer := time.NewTimer(max(next.Sub(now), time.Millisecond))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-c.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// sign requests the SVIDs of some entries, each for a new key.
func (c *Cache) sign(ctx context.Context, ids []string) {
	keys := make([]*ecdsa.PrivateKey, len(ids))
	etags := make([]string, len(ids))
	requests := make([]*ententev1.EntryX509Request, len(ids))
	for i, id := range ids {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			c.failed(ids, err)
			return
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			c.failed(ids, err)
			return
		}
		keys[i], requests[i] = key, &ententev1.EntryX509Request{EntryId: id, Csr: csr}
	}
	c.mu.RLock()
	for i, id := range ids {
		if h := c.entries[id]; h != nil {
			etags[i] = h.entry.GetEtag()
		}
	}
	c.mu.RUnlock()
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	at := c.now()
	results, err := c.issuer.IssueX509SVIDs(call, requests)
	if err != nil || len(results) != len(ids) {
		if ctx.Err() == nil {
			c.failed(ids, fmt.Errorf("%d of %d results: %w", len(results), len(ids), err))
		}
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range results {
		h := c.entries[ids[i]]
		if h == nil {
			continue
		}
		svid, err := parse(r, keys[i], h.entry)
		if err != nil {
			c.fail(h, err)
			continue
		}
		h.svid, h.authority, h.etag, h.at = svid, r.GetSvid().GetAuthorityId(), etags[i], at
		h.failures, h.retry = 0, time.Time{}
		if c.distrusted[h.authority] {
			c.fail(h, fmt.Errorf("the member still signs with authority %s, which is no longer trusted", h.authority))
		}
	}
	c.notify()
}

// parse returns the SVID of a result, which must be for the key and the ID of the entry.
func parse(r *ententev1.X509SVIDResult, key *ecdsa.PrivateKey, e *ententev1.Entry) (*x509svid.SVID, error) {
	if f := r.GetFailure(); f != nil {
		return nil, status.Error(codes.Code(f.GetCode()), f.GetMessage()) //nolint:gosec // a gRPC code
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	svid, err := x509svid.ParseRaw(bytes.Join(r.GetSvid().GetCertificates(), nil), pkcs8)
	if err != nil {
		return nil, fmt.Errorf("the member returned an SVID that is invalid or of another key: %w", err)
	}
	if svid.ID.String() != e.GetSpiffeId() {
		return nil, fmt.Errorf("the member returned an SVID of %s for %s", svid.ID, e.GetSpiffeId())
	}
	return svid, nil
}

func (c *Cache) failed(ids []string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if h := c.entries[id]; h != nil {
			c.fail(h, err)
		}
	}
}

// fail has an entry wait before the next attempt. c.mu is held.
func (c *Cache) fail(h *held, err error) {
	wait := min(firstRetry<<min(h.failures, 10), lastRetry)
	h.failures++
	h.retry = c.now().Add(wait)
	c.logger.Warn("an SVID could not be issued, which is tried again", "entry", h.entry.GetId(),
		"spiffe_id", h.entry.GetSpiffeId(), "error", err)
}

// SVID returns a valid SVID with an ID, or nil.
func (c *Cache) SVID(id spiffeid.ID) *x509svid.SVID {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var best *x509svid.SVID
	for _, h := range c.entries {
		if h.svid == nil || h.svid.ID != id || !c.now().Before(h.svid.Certificates[0].NotAfter) {
			continue
		}
		if best == nil || h.svid.Certificates[0].NotAfter.After(best.Certificates[0].NotAfter) {
			best = h.svid
		}
	}
	return best
}

// Counts returns how many entries and how many valid SVIDs there are, and the end of the SVID that ends first.
func (c *Cache) Counts() (entries, svids int, first time.Time) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, h := range c.entries {
		if h.svid == nil {
			continue
		}
		end := h.svid.Certificates[0].NotAfter
		if c.now().Before(end) {
			svids++
		}
		if first.IsZero() || end.Before(first) {
			first = end
		}
	}
	return len(c.entries), svids, first
}
