package federation

import (
	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/raftstore"
)

// Audit takes down what this room decides by itself about bundles. Record is called from many goroutines; when it returns the line
// is written. After an error nothing is stored that needed the line. [access.Log] is one.
type Audit interface {
	Record(access.Event) error
}

// taskName is the caller in the audit lines of what nobody asked for.
const taskName = "federation"

// The actions of this room in the audit log. The object is the trust domain, the result one of access's or the reason of a refusal.
const (
	actionAccept = "accept bundle"
	actionRefuse = "refuse bundle"
	actionReset  = "reset bundle sequence"
)

// record writes an audit line about something that has happened whether or not the line can be written.
func (m *Manager) record(action, trustDomain, result, detail string, revision raftstore.Revision) {
	e := access.Event{Caller: taskName, Action: action, Object: trustDomain, Result: result, Detail: detail, Revision: uint64(revision)}
	if err := m.config.Audit.Record(e); err != nil {
		m.log.Error("audit line not written", "action", action, "trust_domain", trustDomain, "result", result, "error", err)
	}
}
