package authority

import (
	"context"
	"fmt"
	"github.com/ententehq/entente/authority/plan"
	"sync"
	"time"
)

// alarmKey names one alarm of one kind in one domain.
type alarmKey struct {
	td, alarm string
	kind      plan.Kind
}

// alarmLog tells the log once when an alarm begins and once when it ends. A domain that has had no authority yet is not one
// that has lost it: between the start of a member and its first authority nothing is said.
type alarmLog struct {
	on  map[alarmKey]bool
	had map[alarmKey]bool // a domain and kind that have had an authority, with an empty alarm
}

// note takes over how an alarm stands, and says whether it has just begun or ended.
func (l *alarmLog) note(key alarmKey, on, exists bool) (began, ended bool) {
	if l.on == nil {
		l.on, l.had = map[alarmKey]bool{}, map[alarmKey]bool{}
	}
	of := alarmKey{td: key.td, kind: key.kind}
	if exists {
		l.had[of] = true
	}
	was := l.on[key]
	if on && !l.had[of] {
		return false, false
	}
	l.on[key] = on
	return on && !was, was && !on
}

// troubles are why the newest attempts to prepare authorities failed, with no alarm in the key.
type troubles struct {
	mu sync.Mutex
	of map[alarmKey]string
}

// set takes over how an attempt ended, and says whether it is the first one that failed.
func (t *troubles) set(td string, kind plan.Kind, err error) (first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[alarmKey]string{}
	}
	key := alarmKey{td: td, kind: kind}
	_, known := t.of[key]
	delete(t.of, key)
	if err != nil {
		t.of[key] = oneLine(err)
	}
	return err != nil && !known
}

// get returns why the newest attempt failed, and whether it did.
func (t *troubles) get(td string, kind plan.Kind) (text string, failed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text, ok := t.of[alarmKey{td: td, kind: kind}]; ok {
		return text, true
	}
	return "no attempt has failed yet", false
}

// noteAlarms tells the log of alarms that began or ended, and says when the next one is due. The metrics show the same.
func (m *Manager) noteAlarms(context.Context) (next time.Time, err error) {
	now := m.config.Now()
	for td, d := range m.signing.Load().domains {
		for _, kind := range plan.Kinds {
			newest := plan.Newest(plan.Situation{Member: m.config.Member, Authorities: d.authorities}, kind)
			active, exists := newest[plan.Active]
			if exists && now.Before(active.Late()) {
				next = plan.Sooner(next, active.Late())
			}
			on := plan.Alarms(now, newest, false)
			for _, alarm := range []string{"late", "none"} {
				began, ended := m.alarmed.note(alarmKey{td.Name(), alarm, kind}, on[alarm], exists)
				switch {
				case began:
					why, _ := m.troubles.get(td.Name(), kind)
					m.log.Error("alarm "+alarm+": "+alarmWords(alarm, active), "trust_domain", td.Name(), "kind", kind, "last_failure", why)
				case ended:
					m.log.Info("the alarm is over", "alarm", alarm, "trust_domain", td.Name(), "kind", kind)
				}
			}
		}
	}
	return next, nil
}

// alarmWords say what an alarm means, and what is to be done.
func alarmWords(alarm string, active plan.Authority) string {
	if alarm == "late" {
		return fmt.Sprintf("the active authority %s has no successor, and signs until %s only; mend what the last failure names, after which all goes on by itself", active.ID, clock(active.NotAfter))
	}
	return "this member has no authority to sign with any more, and passes requests on to others, if there are any; mend what the last failure names, after which all goes on by itself"
}
