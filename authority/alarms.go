package authority

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/ententehq/entente/authority/issue"
	"github.com/ententehq/entente/authority/plan"
)

// alarmKey is one alarm for one kind of authority in one domain.
type alarmKey struct {
	domainKind
	alarm string
}

// alarmTracker tracks which alarms are on. A domain that never had an authority has not lost it: no alarm begins
// between the start of a member and its first authority.
type alarmTracker struct {
	on  map[alarmKey]bool
	had map[domainKind]bool // those that have had an authority
}

// update stores whether an alarm is on, and reports whether it has just begun or ended. exists is true if there is an
// active authority.
func (t *alarmTracker) update(key alarmKey, on, exists bool) (began, ended bool) {
	if t.on == nil {
		t.on, t.had = map[alarmKey]bool{}, map[domainKind]bool{}
	}
	if exists {
		t.had[key.domainKind] = true
	}
	was := t.on[key]
	if on && !t.had[key.domainKind] {
		return false, false
	}
	t.on[key] = on
	return on && !was, was && !on
}

// alarmLogger logs once when an alarm begins and once when it ends. The metrics show the same alarms.
type alarmLogger struct {
	member   string
	issuer   *issue.Issuer
	failures *failures
	now      func() time.Time
	log      hclog.Logger
	tracker  alarmTracker // only reconcile uses it
}

// reconcile logs the alarms that began or ended, and returns when the next one is due.
func (l *alarmLogger) reconcile(context.Context) (next time.Time, err error) {
	now := l.now()
	for td, d := range l.issuer.State().Domains {
		for _, kind := range plan.Kinds {
			newest := plan.Newest(plan.Situation{Member: l.member, Authorities: d.Authorities}, kind)
			active, exists := newest[plan.Active]
			if exists && now.Before(active.Late()) {
				next = plan.Sooner(next, active.Late())
			}
			on := plan.Alarms(now, newest, false)
			for _, alarm := range []string{"late", "none"} {
				key := domainKind{td.Name(), kind}
				began, ended := l.tracker.update(alarmKey{key, alarm}, on[alarm], exists)
				switch {
				case began:
					why, _ := l.failures.get(td.Name(), kind)
					l.log.Error("alarm "+alarm+": "+alarmText(alarm, active), "trust_domain", td.Name(), "kind", kind,
						"last_failure", why)
				case ended:
					l.log.Info("the alarm is over", "alarm", alarm, "trust_domain", td.Name(), "kind", kind)
				}
			}
		}
	}
	return next, nil
}

// alarmText returns what an alarm means and what to do.
func alarmText(alarm string, active plan.Authority) string {
	if alarm == "late" {
		return fmt.Sprintf("the active authority %s has no successor, and signs until %s only; "+
			"fix what the last failure names, and the member recovers by itself", active.ID, timeText(active.NotAfter))
	}
	return "this member has no authority to sign with any more, and forwards requests to other members, if there " +
		"are any; " +
		"fix what the last failure names, and the member recovers by itself"
}
