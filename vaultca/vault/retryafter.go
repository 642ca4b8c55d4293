package vault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// longestRest bounds the pause that an answer can demand: a proxy could send anything, and a Vault that works again has
// to be found within a minute.
const longestRest = time.Minute

// retryAfter returns the pause that an answer demands, or 0 if there is none or it cannot be parsed.
func retryAfter(status int, header string, now time.Time) time.Duration {
	if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
		return 0
	}
	header = strings.TrimSpace(header)
	var rest time.Duration
	if seconds, err := strconv.ParseUint(header, 10, 32); err == nil {
		rest = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		rest = at.Sub(now)
	}
	return min(max(rest, 0), longestRest)
}

// rest is the time until which no call is made, by the monotonic clock. It holds for all calls, since a rate limit
// counts them all.
type rest struct {
	mu    sync.Mutex
	until time.Time
}

func (r *rest) left() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Until(r.until)
}

// extend sets the pause that an answer demands, and up to a tenth more, so that members do not return at the same time.
func (r *rest) extend(d time.Duration) {
	if d <= 0 {
		return
	}
	d += time.Duration(rand.Int64N(int64(d/10) + 1)) //nolint:gosec // G404: spreads load, guards nothing
	r.mu.Lock()
	defer r.mu.Unlock()
	if until := time.Now().Add(d); until.After(r.until) {
		r.until = until
	}
}

// resting returns the error of a call that was not made because of a pause.
func resting(left time.Duration) error {
	return fmt.Errorf("%w; no calls are made until its Retry-After has passed (%w)", ErrBusy,
		&backoff.RetryAfterError{Duration: left})
}

// restKey is the context key of the rest that receives a Retry-After.
type restKey struct{}

func withRest(ctx context.Context, r *rest) context.Context {
	return context.WithValue(ctx, restKey{}, r)
}

// heed stores the pause that an answer demands.
func heed(response *http.Response) {
	r, ok := response.Request.Context().Value(restKey{}).(*rest)
	if ok {
		r.extend(retryAfter(response.StatusCode, response.Header.Get("Retry-After"), time.Now()))
	}
}
