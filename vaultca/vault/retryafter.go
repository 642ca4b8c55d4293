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

// longestRest bounds for how long an answer can have this member leave Vault alone: what stands between could say
// anything, and a Vault that is well again is to be found within a minute.
const longestRest = time.Minute

// retryAfter reads how long an answer asks to be left alone, 0 where it does not, or not in a way that can be read.
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

// rest is until when Vault asked to be left alone, by the monotonic clock. All calls keep to it, since a limit counts
// them all.
type rest struct {
	mu    sync.Mutex
	until time.Time
}

func (r *rest) left() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Until(r.until)
}

// ask takes over what an answer asked for, and up to a tenth more, so that members do not come back together.
func (r *rest) ask(d time.Duration) {
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

// resting is the failure of a call that was not made, because Vault asked to be left alone.
func resting(left time.Duration) error {
	return fmt.Errorf("%w; it asked to be left alone for now (%w)", ErrBusy, &backoff.RetryAfterError{Duration: left})
}

// restKey is where the context of an attempt holds what takes over a Retry-After of its answer.
type restKey struct{}

func withRest(ctx context.Context, r *rest) context.Context {
	return context.WithValue(ctx, restKey{}, r)
}

// heed takes over what an answer asks for.
func heed(response *http.Response) {
	r, ok := response.Request.Context().Value(restKey{}).(*rest)
	if ok {
		r.ask(retryAfter(response.StatusCode, response.Header.Get("Retry-After"), time.Now()))
	}
}
