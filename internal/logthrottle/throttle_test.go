package logthrottle

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
)

// newLog returns a limited logger and a function that returns the lines since its last call.
func newLog(options hclog.LoggerOptions) (hclog.Logger, *Throttle, func() []string) {
	var out bytes.Buffer
	var mu sync.Mutex // the logger holds it while it writes, also from the goroutine of a timer
	options.Name, options.Output, options.Mutex, options.DisableTime = "entente", &out, &mu, true
	log, throttle := New(hclog.New(&options))
	return log, throttle, func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		defer out.Reset()
		return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	}
}

// TestOutage: an error that returns four times a second for ten minutes takes a line a minute, and the counts add up.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, throttle, lines := newLog(hclog.LoggerOptions{Level: hclog.Info})
		defer throttle.Close()
		raft := log.Named("raft").With("member", "eu-1")
		for term := range 2400 {
			raft.Error("cannot append", "term", term)
			time.Sleep(250 * time.Millisecond)
		}
		require.Equal(t, []string{
			"[ERROR] entente.raft: cannot append: member=eu-1 term=0",
			"[ERROR] entente.raft: cannot append: member=eu-1 term=1",
			"[ERROR] entente.raft: cannot append: member=eu-1 term=2",
			"[ERROR] entente.raft: cannot append: member=eu-1 term=3",
			"[ERROR] entente.raft: cannot append: member=eu-1 term=4",
			"[ERROR] entente.raft: cannot append: member=eu-1 term=244 omitted=239",
			"[ERROR] entente.raft: cannot append: member=eu-1 term=484 omitted=239",
			"[ERROR] entente.raft: cannot append: member=eu-1 term=724 omitted=239",
			"[ERROR] entente.raft: cannot append: member=eu-1 term=964 omitted=239",
			"[ERROR] entente.raft: cannot append: member=eu-1 term=1204 omitted=239",
			"[ERROR] entente.raft: cannot append: member=eu-1 term=1444 omitted=239",
			"[ERROR] entente.raft: cannot append: member=eu-1 term=1684 omitted=239",
			"[ERROR] entente.raft: cannot append: member=eu-1 term=1924 omitted=239",
			"[ERROR] entente.raft: cannot append: member=eu-1 term=2164 omitted=239",
		}, lines())
		time.Sleep(interval)
		require.Equal(t, []string{"[ERROR] entente.raft: cannot append: member=eu-1 omitted=235"}, lines())
		time.Sleep(10 * interval)
		require.Equal(t, []string{""}, lines(), "the summary is written once")
		raft.Error("cannot append", "term", 2400)
		require.Equal(t, []string{"[ERROR] entente.raft: cannot append: member=eu-1 term=2400"}, lines())
	})
}

// TestOtherLinesPass: a line that is left out takes no other with it.
func TestOtherLinesPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, throttle, lines := newLog(hclog.LoggerOptions{Level: hclog.Info})
		defer throttle.Close()
		for range burst + 1 {
			log.Warn("down")
		}
		require.Len(t, lines(), burst)
		log.Error("down")
		log.Warn("up")
		log.Named("port").Warn("down")
		log.ResetNamed("port").Warn("down")
		for range burst + 2 {
			log.Info("down")
			log.Debug("down")
		}
		require.Equal(t, append([]string{
			"[ERROR] entente: down", "[WARN]  entente: up", "[WARN]  entente.port: down", "[WARN]  port: down",
		}, slices.Repeat([]string{"[INFO]  entente: down"}, burst+2)...), lines())
		log.With("peer", 1).Log(hclog.Warn, "down")
		require.Equal(t, []string{""}, lines(), "derived loggers share the limit")
	})
}

// TestClose: the end of the process loses no count.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, throttle, lines := newLog(hclog.LoggerOptions{Level: hclog.Info, JSONFormat: true})
		for range burst + 3 {
			log.Warn("down")
		}
		require.Len(t, lines(), burst)
		throttle.Close()
		require.Equal(t,
			[]string{`{"@level":"warn","@message":"down","@module":"entente","omitted":3}`}, lines())
		throttle.Close()
		require.Equal(t, []string{""}, lines())
		for range burst + 3 {
			log.Warn("down")
		}
		require.Len(t, lines(), burst+3, "after Close every line passes")
	})
}

// TestUnlimited: lines with a limit of their own pass, and count nowhere.
func TestUnlimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, throttle, lines := newLog(hclog.LoggerOptions{Level: hclog.Info})
		defer throttle.Close()
		port := log.Named("port")
		for range burst + 1 {
			Unlimited(port).Warn("refused")
		}
		port.Warn("refused")
		require.Equal(t, slices.Repeat([]string{"[WARN]  entente.port: refused"}, burst+2), lines())
		require.Equal(t, hclog.L(), Unlimited(hclog.L()), "a logger without a limit stays as it is")
	})
}

// TestLevel: lines below the level of the logger are not counted.
func TestLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, throttle, lines := newLog(hclog.LoggerOptions{Level: hclog.Error})
		for range 2 * burst {
			log.Warn("down")
		}
		throttle.Close()
		require.Equal(t, []string{""}, lines())
	})
}
