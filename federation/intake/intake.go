// Package intake stores the bundles of foreign trust domains, and raises alarms on what their sources show.
//
// A bundle reaches the cluster from an endpoint, over a stream from a peer, or from an operator. Each passes the same
// rules and the same transaction: [Intake.BasisOf] reads what the decision depends on, [relationship.Accept] decides,
// and [Intake.Keep] stores the bundle if nothing of the basis has changed since. Bundles that are not stored are
// compared with the history by [Intake.Compare]. Signed statements are judged by [Intake.TakeStatements].
//
// Nothing is stored that cannot be audited. An alarm takes no trust away.
package intake

import (
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// Caller is the caller in the audit lines of what the federation does by itself.
const Caller = "federation"

// The actions in the audit log. The object is the trust domain, the result one of package audit's or the reason of a
// refusal.
const (
	ActionAccept = "accept bundle"
	ActionRefuse = "refuse bundle"
	actionAlarm  = "raise alarm"
)

// Config has the dependencies of an [Intake]. All fields but Registerer are required.
type Config struct {
	Store *raftstore.Store
	// Trust finds the bundle of a domain that serves another domain's bundle.
	Trust *trust.Index
	Audit audit.Recorder
	// MinRefresh is the shortest interval at which a bundle is fetched.
	MinRefresh time.Duration
	Log        hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Intake stores bundles, and what follows from them. It is safe for concurrent use, and runs on any member.
type Intake struct {
	config Config
	// StatementsTotal counts checks of statements by result. Those who receive statements increment it.
	StatementsTotal *prometheus.CounterVec
	// AlarmsTotal counts alarms by name.
	AlarmsTotal *prometheus.CounterVec
}

// New returns an intake and registers its metrics.
func New(c Config) (*Intake, error) {
	in := &Intake{
		config: c,
		StatementsTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_federation_statement_fetches_total",
			Help: "Signed statements on foreign bundles that this member fetched or that a peer sent, by result.",
		}, []string{"result"}),
		AlarmsTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_federation_alarms_raised_total",
			Help: "Alarms that this member raised on the bundles of foreign domains, by name.",
		}, []string{"alarm"}),
	}
	if c.Registerer == nil {
		return in, nil
	}
	for _, collector := range []prometheus.Collector{in.StatementsTotal, in.AlarmsTotal} {
		if err := c.Registerer.Register(collector); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// MinRefresh returns the shortest interval at which a peer is polled.
func (in *Intake) MinRefresh() time.Duration { return in.config.MinRefresh }

// Interval returns the interval at which a stored bundle is fetched under a relationship's poll interval.
func (in *Intake) Interval(poll time.Duration, h relationship.Holding) time.Duration {
	return relationship.Interval(poll, h.Hint, h.Hinted, in.config.MinRefresh)
}

// Record writes an audit line about something that has happened, whether or not the line can be written.
func (in *Intake) Record(action, trustDomain, result, detail string, revision raftstore.Revision) {
	e := audit.Event{
		Caller: Caller, Action: action, Object: trustDomain, Result: result, Detail: detail, Revision: uint64(revision),
	}
	if err := in.config.Audit.Record(e); err != nil {
		in.config.Log.Error("audit line not written", "action", action, "trust_domain", trustDomain, "result", result,
			"error", err)
	}
}
