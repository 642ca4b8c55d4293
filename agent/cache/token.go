package cache

import (
	"context"
	"slices"
	"strings"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// maxTokens bounds the JWT-SVIDs that are kept, at about 1 KiB each.
const maxTokens = 4096

// tokenKey is an entry with a sorted audience.
type tokenKey struct {
	entry, audience string
}

// token is a JWT-SVID.
type token struct {
	text      string
	authority string
	etag      string
	at, end   time.Time
}

// JWTSVID returns a JWT-SVID for an entry. It is signed for the first caller, and returned to others while half of its
// life is left. If it cannot be renewed then, it is returned until it expires.
func (c *Cache) JWTSVID(ctx context.Context, e *ententev1.Entry, audience []string) (string, error) {
	audience = slices.Compact(slices.Sorted(slices.Values(audience)))
	key := tokenKey{e.GetId(), strings.Join(audience, "\x00")}
	c.mu.RLock()
	t, now := c.tokens[key], c.now()
	c.mu.RUnlock()
	if t != nil && now.Before(t.at.Add(t.end.Sub(t.at)/2)) {
		return t.text, nil
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	signed, err := c.issuer.IssueJWTSVID(call, e.GetId(), audience)
	if err != nil {
		if t != nil && c.now().Before(t.end) {
			return t.text, nil
		}
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tokens) >= maxTokens {
		for old, t := range c.tokens {
			if len(c.tokens) < maxTokens && c.now().Before(t.end) {
				continue
			}
			delete(c.tokens, old)
		}
	}
	h := c.entries[e.GetId()]
	if h != nil && h.entry.GetEtag() == e.GetEtag() && !c.distrusted[signed.GetAuthorityId()] {
		c.tokens[key] = &token{
			text: signed.GetToken(), authority: signed.GetAuthorityId(), etag: e.GetEtag(), at: now,
			end: signed.GetExpireTime().AsTime(),
		}
	}
	return signed.GetToken(), nil
}
