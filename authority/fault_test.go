package authority

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/authority/internal/loop"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/upstream"
)

// What can happen at a step.
const (
	stops     = "the process stops"
	fails     = "the step fails"
	elects    = "leadership changes"
	daysAhead = "the clock jumps a day ahead"
	daysBack  = "the clock jumps a day back"
)

// accident happens to a member once, at one of the steps that outlive its process: a line in the audit log, a key that
// is made, certified or deleted, a signature of the upstream, the pruning of its roots. What happens between two steps
// is in memory, and lost with the process, or is the transaction, between its two lines in the audit log.
type accident struct {
	f    *fleet
	kind string
	at   int
	// of is the member that it happens to.
	of func() *node

	mu       sync.Mutex
	steps    int
	happened string // the step, once it has
	looks    int    // at a clock that is wrong
}

// process is one run of the member's process. After it has stopped, it has no effects.
type process struct {
	a       *accident
	member  string
	stopped atomic.Bool
}

// errStep is the error of a step that fails.
var errStep = errors.New("it broke")

// step runs a step that outlives the process, or the accident instead of it.
func (p *process) step(name string, do func() error) error {
	if p.stopped.Load() {
		runtime.Goexit()
	}
	if !p.hit(name) {
		return do()
	}
	switch p.a.kind {
	case stops:
		p.stopped.Store(true)
		runtime.Goexit()
	case fails:
		return errStep
	case elects:
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		for _, c := range p.a.f.nodes {
			if c.store.IsLeader() {
				_ = c.store.Servers().TransferLeadership(ctx, "") // one that does not come about is no accident
			}
		}
	case daysAhead:
		p.a.of().set(func() { p.a.of().insane, p.a.of().skew = true, 24*time.Hour })
	case daysBack:
		p.a.of().set(func() { p.a.of().insane, p.a.of().skew = true, -24*time.Hour })
	}
	return do()
}

// hit counts the step, and reports whether the accident happens there.
func (p *process) hit(name string) bool {
	p.a.mu.Lock()
	defer p.a.mu.Unlock()
	if p.a.of == nil || p.a.of().id != p.member || p.a.happened != "" {
		return false
	}
	if p.a.steps++; p.a.steps < p.a.at {
		return false
	}
	p.a.happened = name
	return true
}

// attend wraps the dependencies of a manager that is about to be made, so that the accident can happen in them.
func (a *accident) attend(c *Config) {
	p := &process{a: a, member: c.Member}
	keys, err := keys.OpenFolder(c.KeyDir)
	if err != nil {
		panic(err)
	}
	c.Keys = steppedKeys{keys, p}
	c.Upstream = steppedUpstream{upstream.NewSelfSigned(c.Keys, plan.DefaultRootTTL), p}
	c.Audit = steppedAudit{c.Audit, p}
	c.Contact = lookedAt{c.Contact, a}
}

type steppedKeys struct {
	keys.Store
	p *process
}

func (k steppedKeys) Create(ctx context.Context, name string) (key crypto.Signer, err error) {
	err = k.p.step("make key", func() (err error) { key, err = k.Store.Create(ctx, name); return err })
	return key, err
}

func (k steppedKeys) Certify(ctx context.Context, name string, c *x509.Certificate) error {
	return k.p.step("keep root", func() error { return k.Store.Certify(ctx, name, c) })
}

func (k steppedKeys) Delete(ctx context.Context, name string) error {
	return k.p.step("delete key", func() error { return k.Store.Delete(ctx, name) })
}

type steppedUpstream struct {
	upstream.Upstream
	p *process
}

func (u steppedUpstream) SignCA(ctx context.Context, r upstream.Request) (signed *upstream.Signed, err error) {
	if signed, err = u.Upstream.SignCA(ctx, r); err != nil {
		return nil, err
	}
	return signed, u.p.step("answer of the upstream", func() error { return nil })
}

func (u steppedUpstream) Prune(inUse func(*x509.Certificate) bool) error {
	return u.p.step("prune roots", func() error { return u.Upstream.Prune(inUse) })
}

type steppedAudit struct {
	audit.Recorder
	p *process
}

func (l steppedAudit) Record(e audit.Event) error {
	if strings.HasPrefix(e.Action, "sign ") || strings.HasPrefix(e.Action, "state ") {
		return l.Recorder.Record(e)
	}
	return l.p.step(e.Result+": "+e.Action, func() error { return l.Recorder.Record(e) })
}

// lookedAt counts the reads of a wrong clock.
type lookedAt struct {
	Contact
	a *accident
}

func (l lookedAt) ClockSane() bool {
	sane := l.Contact.ClockSane()
	if !sane {
		l.a.mu.Lock()
		l.a.looks++
		l.a.mu.Unlock()
	}
	return sane
}

// repair restarts a process that has stopped, on what it left, and repairs a clock after it was read several times.
func (a *accident) repair(c *node) {
	if p, ok := c.config.Audit.(steppedAudit); ok && p.p.stopped.Load() {
		a.f.halt(c)
		a.f.start(c)
	}
	if !c.is(func() bool { return c.insane }) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	for looks := 0; looks < 3; {
		c.changed.Fire()
		if err := loop.WaitFor(ctx, nil, time.Millisecond); err != nil {
			a.f.t.Fatalf("member %s does not look at its clock: %v", c.id, err)
		}
		a.mu.Lock()
		looks = a.looks
		a.mu.Unlock()
	}
	c.set(func() { c.insane, c.skew = false, 0 })
	c.changed.Fire()
}

// call has an operator call a member, and repeats the call if the process stopped or a step failed.
func (a *accident) call(c *node, do func(context.Context) error) {
	a.f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	for {
		err := errors.New("the process stopped")
		ended := make(chan struct{})
		go func() { // which a step can end
			defer close(ended)
			err = do(ctx)
		}()
		<-ended
		if err == nil {
			break
		}
		a.repair(c)
		if waitErr := loop.WaitFor(ctx, nil, time.Millisecond); waitErr != nil {
			a.f.t.Fatalf("member %s: %v", c.id, err)
		}
	}
	a.f.settle()
}
