package operations

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestOperations(t *testing.T) {
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "entente_test_total", Help: "A test."})
	registry.MustRegister(counter)
	o := New(registry, hclog.NewNullLogger())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- o.Serve(ctx, l) }()
	request := func(method, path string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+l.Addr().String()+path, nil)
		require.NoError(t, err)
		answer, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return answer.StatusCode, string(text)
	}
	expect := func(path string, code int, text string) {
		t.Helper()
		gotCode, got := request(http.MethodGet, path)
		require.Equal(t, code, gotCode, got)
		require.Equal(t, text, got)
	}

	expect("/live", 200, "live\n")
	expect("/ready", 503, "not ready: starting or stopping\n")
	missing := errors.New("no bundle of eu.example.org has been published yet")
	o.SetReady([]Check{{"leader", func() error { return nil }}, {"bundle", func() error { return missing }}})
	expect("/ready", 503, "leader: ok\nbundle: no bundle of eu.example.org has been published yet\n")
	missing = nil
	expect("/ready", 200, "leader: ok\nbundle: ok\n")
	full := errors.New("the disk of the data folder is full")
	expect("/ready/write", 503, "not ready: starting or stopping\n")
	o.SetReadyToWrite([]Check{{"disk", func() error { return full }}, {"audit", func() error { return nil }}})
	expect("/ready/write", 503, "disk: the disk of the data folder is full\naudit: ok\n")
	expect("/ready", 200, "leader: ok\nbundle: ok\n")
	full = nil
	expect("/ready/write", 200, "disk: ok\naudit: ok\n")
	code, text := request(http.MethodGet, "/metrics")
	require.Equal(t, 200, code)
	require.Contains(t, text, "entente_test_total 0")
	code, _ = request(http.MethodPost, "/metrics")
	require.Equal(t, 405, code)

	o.Fail(errors.New("the disk hangs"))
	o.Fail(errors.New("later"))
	expect("/live", 503, "failed: the disk hangs\n")
	o.SetReady(nil)
	o.SetReadyToWrite(nil)
	expect("/ready", 503, "not ready: starting or stopping\n")
	expect("/ready/write", 503, "not ready: starting or stopping\n")
	stop()
	require.NoError(t, <-served)
}
