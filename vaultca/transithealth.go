package vaultca

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// defaultRest is for how long signatures fail at once after one failed for a reason that may pass.
const defaultRest = time.Second

// health is how Transit does at the moment.
type health struct {
	mu      sync.Mutex
	failing string // the reason; empty while it works
	why     error
	until   time.Time // until when nobody is to ask for a signature
	rest    time.Duration
}

// resting is the error of the last attempt while it is too early for the next one.
func (h *health) resting() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.why == nil || !time.Now().Before(h.until) {
		return nil
	}
	return fmt.Errorf("a moment ago: %w", h.why)
}

// note keeps an outcome, and says whether a failure began or ended.
func (h *health) note(err error) (began, ended bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.failing
	h.failing, h.why = "", nil
	if err == nil {
		return false, was != ""
	}
	h.failing, h.why = Reason(err), err
	if passes(err) {
		h.until = time.Now().Add(h.rest)
	} else {
		h.until = time.Time{}
	}
	return h.failing != was, false
}

// outcome writes one line when Transit begins to fail, or fails for another reason, and one when it works again. That a
// key is missing says nothing of Transit itself.
func (t *Transit) outcome(ctx context.Context, err error) {
	switch {
	case err != nil && ctx.Err() != nil:
		return // the end of this member or of the call, not a failure
	case errors.Is(err, ErrKeyGone), errors.Is(err, ErrKeyChanged), errors.Is(err, ErrKeyKind):
		err = nil
	}
	began, ended := t.health.note(err)
	t.metrics.up.Set(flag(err == nil))
	switch {
	case began:
		t.config.Vault.Logger.Error("Vault's Transit is of no use at the moment; other members sign where their keys can be reached, and it is tried again",
			"mount", t.config.Mount, "reason", Reason(err), "error", err)
	case ended:
		t.config.Vault.Logger.Info("Vault's Transit works again", "mount", t.config.Mount)
	}
}

type transitMetrics struct {
	up   prometheus.Gauge
	lost *prometheus.CounterVec
}

func newTransitMetrics(r prometheus.Registerer, t *Transit) (*transitMetrics, error) {
	m := &transitMetrics{
		up: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "entente_vaultca_transit_up", Help: "1 while the last call of Vault's Transit worked, 0 while it did not, or before the first.",
		}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_vaultca_transit_lost_total", Help: "Signing keys that Transit did not have any more (key_gone), or that another one had taken the place of (key_changed).",
		}, []string{"reason"}),
	}
	count := func(state string, of func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "entente_vaultca_transit_keys", ConstLabels: prometheus.Labels{"state": state},
			Help: "Keys of this member in Transit: in use (ready), to be deleted as soon as Vault answers (doomed), in doubt (suspect), and those that can have left Vault (exposed).",
		}, func() float64 {
			t.mu.Lock()
			defer t.mu.Unlock()
			return float64(of())
		})
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.up, m.lost,
		count("ready", func() int { return len(t.keys) }), count("doomed", func() int { return len(t.doomed) }),
		count("suspect", func() int { return len(t.suspect) }), count("exposed", func() int { return len(t.exposed) }),
	} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
