package cache

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

const (
	// maxTokens bounds the JWT-SVIDs that are kept, at about 1 KiB each, and maxTokensEach those of one entry.
	maxTokens, maxTokensEach = 4096, 512
	// missRate and missBurst bound the JWT-SVIDs that are requested from members: half of what a member signs for one
	// agent by default (issue_rate), so that X509-SVIDs are always renewed. entryMissRate and entryMissBurst are the
	// share of one entry, so that a workload that requests a new token each time leaves the others theirs.
	missRate, missBurst           = 250, 1000
	entryMissRate, entryMissBurst = 50, 200
)

// token is a JWT-SVID.
type token struct {
	text      string
	authority string
	at, end   time.Time
}

// JWTSVID returns a JWT-SVID for an entry. It is signed for the first caller, and returned to others while half of its
// life is left. If it cannot be renewed then, it is returned until it expires.
func (c *Cache) JWTSVID(ctx context.Context, e *ententev1.Entry, audience []string) (string, error) {
	audience = slices.Compact(slices.Sorted(slices.Values(audience)))
	key := strings.Join(audience, "\x00")
	var t *token
	c.mu.RLock()
	h, now := c.entries[e.GetId()], c.now()
	if h != nil {
		t = h.tokens[key]
	}
	c.mu.RUnlock()
	if t != nil && now.Before(t.at.Add(t.end.Sub(t.at)/2)) {
		return t.text, nil
	}
	signed, err := c.requestToken(ctx, h, e, audience)
	if err != nil {
		if t != nil && c.now().Before(t.end) {
			return t.text, nil
		}
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h = c.entries[e.GetId()]
	if h != nil && h.entry.GetEtag() == e.GetEtag() && !c.distrusted[signed.GetAuthorityId()] {
		c.keep(h, key, &token{
			text: signed.GetToken(), authority: signed.GetAuthorityId(), at: now,
			end: signed.GetExpireTime().AsTime(),
		})
	}
	return signed.GetToken(), nil
}

// requestToken has a JWT-SVID signed, within the rates of the entry and of the agent.
func (c *Cache) requestToken(
	ctx context.Context, h *held, e *ententev1.Entry, audience []string,
) (*ententev1.IssueJWTSVIDResponse, error) {
	if h == nil {
		return nil, status.Error(codes.PermissionDenied, "the entry is gone")
	}
	if !h.misses.Allow() || !c.misses.Allow() {
		return nil, status.Errorf(codes.ResourceExhausted, "more than %d new JWT-SVIDs a second are requested for %s, "+
			"or %d on this node: use one until it expires, and few audiences", entryMissRate, e.GetSpiffeId(), missRate)
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.issuer.IssueJWTSVID(call, e.GetId(), audience)
}

// keep stores a token. If there are too many, expired ones give way, and then any of the same entry, or of the one that
// has the most. c.mu is held.
func (c *Cache) keep(h *held, key string, t *token) {
	if len(h.tokens) >= maxTokensEach || c.kept >= maxTokens {
		now, most := c.now(), h
		for _, other := range c.entries {
			maps.DeleteFunc(other.tokens, func(_ string, t *token) bool { return !now.Before(t.end) })
			if len(other.tokens) > len(most.tokens) {
				most = other
			}
		}
		if c.count(); len(h.tokens) >= maxTokensEach {
			most = h
		}
		for old := range most.tokens {
			if len(h.tokens) < maxTokensEach && c.kept < maxTokens {
				break
			}
			delete(most.tokens, old)
			c.kept--
		}
	}
	if h.tokens == nil {
		h.tokens = map[string]*token{}
	}
	if h.tokens[key] == nil {
		c.kept++
	}
	h.tokens[key] = t
}

// count counts the tokens of all entries. c.mu is held.
func (c *Cache) count() {
	c.kept = 0
	for _, h := range c.entries {
		c.kept += len(h.tokens)
	}
}
