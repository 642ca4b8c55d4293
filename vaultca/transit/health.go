package transit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ententehq/entente/vaultca/vault"
)

// defaultRest is the time for which signatures fail at once after a transient failure. After a permanent one it is ten
// times as long, since each attempt is a login too.
const (
	defaultRest = time.Second
	longRest    = 10
)

// The tasks that can fail independently: a right can exist for one and not for another.
const (
	taskMake = "make"
	taskSign = "sign"
	taskRead = "read" // and delete
)

// health is the present state of Transit.
type health struct {
	rest time.Duration

	mu      sync.Mutex
	failing map[string]error // by task
	until   time.Time        // no signature is tried before
	trying  bool             // an attempt is under way
}

// enter admits an attempt to sign. While signing fails, one attempt is admitted now and then, and the others get the
// last error at once. leave is called when the attempt is over.
func (h *health) enter() (leave func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	why := h.failing[taskSign]
	if why == nil {
		return func() {}, nil
	}
	if h.trying || time.Now().Before(h.until) {
		return nil, fmt.Errorf("a moment ago: %w", why)
	}
	h.trying = true
	return func() {
		h.mu.Lock()
		h.trying = false
		h.mu.Unlock()
	}, nil
}

// record stores the outcome of a task. began reports a failure that no task had, ended the end of the last failure. A
// successful task ends the transient failures of all tasks.
func (h *health) record(task string, err error) (began, ended bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		were := len(h.failing)
		for t, why := range h.failing {
			if t == task || vault.Transient(why) {
				delete(h.failing, t)
			}
		}
		return false, were > 0 && len(h.failing) == 0
	}
	began = true
	for _, known := range h.failing {
		began = began && vault.Reason(known) != vault.Reason(err)
	}
	h.failing[task] = err
	if task == taskSign {
		rest := h.rest
		if !vault.Transient(err) {
			rest *= longRest
		}
		h.until = time.Now().Add(rest)
	}
	return began, false
}

func (h *health) well() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.failing) == 0
}

// outcome logs one line when a task begins to fail, or fails for another reason, and one when all tasks work again. A
// missing key is no failure of Transit.
func (t *Store) outcome(ctx context.Context, task string, err error) {
	switch {
	case err != nil && ctx.Err() != nil:
		return // the end of this member or of the call, not a failure
	case errors.Is(err, vault.ErrKeyGone), errors.Is(err, vault.ErrKeyChanged), errors.Is(err, vault.ErrKeyKind):
		err = nil
	}
	began, ended := t.health.record(task, err)
	t.metrics.up.Set(flag(t.health.well()))
	switch {
	case began:
		t.config.Vault.Logger.Error(
			"Vault's Transit is of no use at the moment; other members sign where their keys can be reached, and it "+
				"is tried again",
			"task",
			task,
			"mount",
			t.config.Mount,
			"reason",
			vault.Reason(err),
			"error",
			err,
		)
	case ended:
		t.config.Vault.Logger.Info("Vault's Transit works again", "mount", t.config.Mount)
	}
}

type metrics struct {
	up   prometheus.Gauge
	lost *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, t *Store) (*metrics, error) {
	m := &metrics{
		up: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "entente_vaultca_transit_up", Help: "1 while the last attempt of each task (make, sign, read) " +
				"worked, 0 while one did not, or before the first.",
		}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_vaultca_transit_lost_total", Help: "Signing keys that Transit did not have any more " +
				"(key_gone), or that another one had taken the place of (key_changed).",
		}, []string{"reason"}),
	}
	count := func(state string, of func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "entente_vaultca_transit_keys", ConstLabels: prometheus.Labels{"state": state},
			Help: "Keys of this member in Transit: in use (ready), to be deleted as soon as Vault answers (doomed), " +
				"in doubt (suspect), and those that can have left Vault (exposed).",
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

func flag(set bool) float64 {
	if set {
		return 1
	}
	return 0
}
