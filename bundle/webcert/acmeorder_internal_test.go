package webcert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"github.com/stretchr/testify/require"
)

func TestReasonOf(t *testing.T) {
	problem := func(name string, status int) error {
		return fmt.Errorf("order: %w", acme.Problem{Type: "urn:ietf:params:acme:error:" + name, Status: status})
	}
	for _, c := range []struct {
		err  error
		want acmeReason
	}{
		{errors.New("connect: connection refused"), reasonUnreachable},
		{fmt.Errorf("order: %w", context.DeadlineExceeded), reasonTimeout},
		{fmt.Errorf("account: %w", &fs.PathError{Op: "open", Path: "acme", Err: fs.ErrPermission}), reasonDisk},
		{fmt.Errorf("present: %w: no leader", errOrders), reasonCluster},
		{problem("rateLimited", 429), reasonRateLimited},
		{problem("malformed", 429), reasonRateLimited},
		{problem("serverInternal", 500), reasonServer},
		{problem("", 503), reasonServer},
		{problem("unauthorized", 403), reasonValidation},
		{problem("connection", 400), reasonValidation},
		{problem("dns", 400), reasonValidation},
		{problem("caa", 403), reasonValidation},
		{problem("rejectedIdentifier", 400), reasonRefused},
		{problem("externalAccountRequired", 403), reasonRefused},
		{problem("something new", 400), reasonRefused},
	} {
		require.Equal(t, c.want, reasonOf(c.err), c.err.Error())
	}
}

func TestWaitAfter(t *testing.T) {
	for _, c := range []struct {
		reason   acmeReason
		failures int
		want     time.Duration
	}{
		{reasonUnreachable, 1, 2 * time.Second},
		{reasonCluster, 3, 8 * time.Second},
		{reasonDisk, 50, 5 * time.Minute},
		{reasonValidation, 1, 2 * time.Minute},
		{reasonRefused, 5, 32 * time.Minute},
		{reasonTimeout, 1000, 6 * time.Hour},
		{reasonRateLimited, 1, time.Hour},
		{reasonServer, 0, 2 * time.Minute},
	} {
		require.Equal(t, c.want, waitAfter(c.reason, c.failures), "%s, failure %d", c.reason, c.failures)
	}
	// A public server lets a name fail five times an hour.
	inAnHour, at := 0, time.Duration(0)
	for n := 1; at < time.Hour; n++ {
		inAnHour++
		at += waitAfter(reasonValidation, n)
	}
	require.Equal(t, 5, inAnHour)
	for range 100 {
		d := jittered(time.Minute)
		require.True(t, d >= time.Minute && d <= 72*time.Second, d)
	}
}

func TestClipTo(t *testing.T) {
	require.Equal(t, "a b c", clipTo("a\nb\x1bc", 10))
	require.Equal(t, "abc…", clipTo("abcdef", 3))
	require.Equal(t, "a…", clipTo("a€b", 2), "a rune is not cut in two")
	require.Equal(t, "a?b", clipTo("a\xffb", 10))
}
