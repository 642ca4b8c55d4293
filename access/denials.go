package access

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/internal/logthrottle"
)

// Limits of the lines about refused calls. They are enough for the mistakes of a person, and not for those of a
// program. Every caller has a budget of its own, so that no caller can spend that of another. A trust domain can have
// any number of IDs; those beyond maxDeniedCallers share one budget.
const (
	denialBurst       = 20
	denialEvery       = 10 * time.Second
	maxDeniedCallers  = 256
	sharedDenialBurst = 100
	sharedDenialEvery = time.Second
)

// denials decides which refused calls get a line. It is safe for concurrent use.
type denials struct {
	now func() time.Time

	mu sync.Mutex
	// domains has the callers of each trust domain. Callers without a SPIFFE ID have the zero domain. Only verified
	// IDs are callers, so that the number of domains is bounded by the trust of the cluster.
	domains map[spiffeid.TrustDomain]map[Caller]*denialBudget
}

// denialBudget is the budget of one caller, or the shared one of a domain.
type denialBudget struct {
	lines *rate.Limiter
	// omitted counts the refused calls without a line since the last line.
	omitted int
}

func newDenials(now func() time.Time) *denials {
	return &denials{now: now, domains: make(map[spiffeid.TrustDomain]map[Caller]*denialBudget)}
}

// take reports whether a refused call of the caller gets a line, and how many before it got none.
func (d *denials) take(c Caller) (omitted int, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.budget(c)
	if !b.lines.AllowN(d.now(), 1) {
		b.omitted++
		return 0, false
	}
	omitted, b.omitted = b.omitted, 0
	return omitted, true
}

// omit counts calls of the caller whose lines could not be written.
func (d *denials) omit(c Caller, calls int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.budget(c).omitted += calls
}

// budget returns the budget of a caller. The zero Caller of a domain has the shared one.
func (d *denials) budget(c Caller) *denialBudget {
	c = c.known() // processes of one user, and certificates of one workload, are one caller
	callers := d.domains[c.id.TrustDomain()]
	if callers == nil {
		callers = make(map[Caller]*denialBudget)
		d.domains[c.id.TrustDomain()] = callers
	}
	if b, ok := callers[c]; ok {
		return b
	}
	burst, every := denialBurst, denialEvery
	if len(callers) >= maxDeniedCallers {
		c, burst, every = Caller{}, sharedDenialBurst, sharedDenialEvery
		if b, ok := callers[c]; ok {
			return b
		}
	}
	b := &denialBudget{lines: rate.NewLimiter(rate.Every(every), burst)}
	callers[c] = b
	return b
}

// omission is a number of refused calls without a line.
type omission struct {
	caller string
	calls  int
}

// summary returns what got no line since the last one, and forgets the callers whose budgets are full.
func (d *denials) summary() []omission {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []omission
	for td, callers := range d.domains {
		for c, b := range callers {
			switch {
			case b.omitted > 0:
				who := c.String()
				if c == (Caller{}) && !td.IsZero() {
					who = "other callers of " + td.Name()
				}
				all = append(all, omission{who, b.omitted})
				b.omitted = 0
			case b.lines.TokensAt(d.now()) >= float64(b.lines.Burst()):
				delete(callers, c)
			}
		}
		if len(callers) == 0 {
			delete(d.domains, td)
		}
	}
	return all
}

// omitted describes refused calls without a line.
func omitted(calls int) string { return fmt.Sprintf("%d more without a line of their own", calls) }

const (
	// denialSummary is how often refused calls without a line are summed up in one.
	denialSummary = time.Minute
	// earlyDenials is how many refused calls wait for their lines. The budget of a caller is far smaller.
	earlyDenials = 1024
)

// refusals counts refused calls and writes their lines. Both kinds of lines are limited, so that a caller without any
// grant cannot fill the disk. The metric counts all refused calls.
type refusals struct {
	log     *audit.Log
	logger  hclog.Logger
	metrics *metrics
	// audits limits the audit lines, and logs the log lines.
	audits, logs *denials
	// early are refusals of calls whose messages were not read.
	early chan denial
}

func newRefusals(cfg GuardConfig, m *metrics) *refusals {
	return &refusals{
		log: cfg.Log, logger: cfg.Logger, metrics: m, audits: newDenials(cfg.Now), logs: newDenials(cfg.Now),
		early: make(chan denial, earlyDenials),
	}
}

// denial is a refused call with the lines that it gets.
type denial struct {
	call   Call
	reason Reason
	// logged and audited are set if it gets the line. The numbers are those of the calls before it that got none.
	logged, audited            bool
	logsOmitted, auditsOmitted int
}

// count counts a refusal, and decides on its lines. It reads and writes memory only.
func (r *refusals) count(c Call, err error) denial {
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok {
		return denial{}
	}
	r.metrics.denied(c.Method, refusal.Reason)
	d := denial{call: c, reason: refusal.Reason}
	d.logsOmitted, d.logged = r.logs.take(c.Caller)
	if c.Rule.Audit != Unaudited {
		d.auditsOmitted, d.audited = r.audits.take(c.Caller)
	}
	return d
}

// write writes the lines of a refused call.
func (r *refusals) write(d denial) {
	if d.logged {
		r.logger.Info("call refused", "method", shortMethod(d.call.Method), "caller", d.call.Caller.String(),
			"reason", string(d.reason), logthrottle.Omitted, d.logsOmitted)
	}
	if !d.audited {
		return
	}
	detail := string(d.reason)
	if d.auditsOmitted > 0 {
		detail += "; before it " + omitted(d.auditsOmitted)
	}
	// The call is refused even if the line cannot be written; Record logs that error.
	_ = r.log.Record(audit.Event{
		Caller: d.call.Caller.String(), Action: shortMethod(d.call.Method), Object: d.call.Target.Object,
		Result: audit.ResultDenied, Detail: detail,
	})
}

// writeLater lets run write the lines. Lines for which there is no room count as omitted.
func (r *refusals) writeLater(d denial) {
	if !d.logged && !d.audited {
		return
	}
	select {
	case r.early <- d:
	default:
		if d.logged {
			r.logs.omit(d.call.Caller, d.logsOmitted+1)
		}
		if d.audited {
			r.audits.omit(d.call.Caller, d.auditsOmitted+1)
		}
	}
}

// run writes the lines of calls that were refused before their messages were read, and records the refused calls
// without a line from time to time, and at the end.
func (r *refusals) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.writeEarly(ctx) })
	group.Go(func() error { return r.summarize(ctx) })
	return group.Wait()
}

func (r *refusals) writeEarly(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case d := <-r.early:
			r.write(d)
		}
	}
}

func (r *refusals) summarize(ctx context.Context) error {
	tick := time.NewTicker(denialSummary)
	defer tick.Stop()
	defer r.recordOmitted()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			r.recordOmitted()
		}
	}
}

// recordOmitted writes a line for each caller with refused calls that got none.
func (r *refusals) recordOmitted() {
	for _, o := range r.audits.summary() {
		// Record logs its own failure.
		_ = r.log.Record(audit.Event{
			Caller: o.caller, Action: "refused calls", Result: audit.ResultDenied, Detail: omitted(o.calls),
		})
	}
}
