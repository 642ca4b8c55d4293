package vault

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name   string
		status int
		header string
		want   time.Duration
	}{
		{"seconds", 429, "7", 7 * time.Second},
		{"seconds, with spaces", 429, " 7 ", 7 * time.Second},
		{"a moment", 429, "Fri, 01 May 2026 12:00:30 GMT", 30 * time.Second},
		{"a moment that is over", 429, "Fri, 01 May 2026 11:00:00 GMT", 0},
		{"too long", 429, "86400", longestRest},
		{"a moment too far", 503, "Fri, 01 May 2099 12:00:30 GMT", longestRest},
		{"none", 429, "", 0},
		{"negative", 429, "-5", 0},
		{"more than any number", 429, "99999999999999999999", 0},
		{"words", 429, "soon", 0},
		{"of another status", 500, "7", 0},
		{"of success", 200, "7", 0},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, retryAfter(c.status, c.header, now)) })
	}
}
