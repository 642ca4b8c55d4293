// Package receiver stores the bundles and signed statements that peers send over streams, by the rules for those that
// are fetched from endpoints. It also decides whose fault a refusal is: see [peer.Fault].
package receiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// attempts is how often a bundle is stored again because what the decision depends on has changed.
const attempts = 3

// Config lists what a [Receiver] depends on. All fields but Registerer are required.
type Config struct {
	Store        *raftstore.Store
	Intake       *intake.Intake
	Mirror       *mirror.Mirror
	Observations *observation.Section
	// LogAllowed reports whether one more refusal of what a peer sent may be logged and audited.
	LogAllowed func(home string) bool
	Log        hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Receiver implements [peer.Receiver].
type Receiver struct {
	config Config
	// confirmed is when peers last confirmed what is stored of a domain.
	confirmed *observation.Confirmations
	// bundles counts bundles by result.
	bundles *prometheus.CounterVec
}

// New returns a receiver and registers its metrics.
func New(c Config) (*Receiver, error) {
	r := &Receiver{
		config: c, confirmed: observation.NewConfirmations(),
		bundles: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_federation_stream_bundles_total", Help: "Bundles that peers sent over streams, by result.",
		}, []string{"result"}),
	}
	if c.Registerer == nil {
		return r, nil
	}
	return r, c.Registerer.Register(r.bundles)
}

// Forget removes what is kept in memory of a domain.
func (r *Receiver) Forget(td string) { r.confirmed.Forget(td) }

// ReceiveBundle stores a bundle in the same transaction as one that was fetched. Any member can run it.
func (r *Receiver) ReceiveBundle(ctx context.Context, home, td string, document []byte) peer.Outcome {
	c := r.config
	began := c.Now()
	var v relationship.Version
	var out intake.Outcome
	var generation uint64
	for range attempts {
		b, err := c.Intake.BasisOf(c.Store.View(), td)
		if err == nil && (b.Rel.Peer == nil || b.Rel.Peer.Home.Name() != home) {
			err = relationship.ErrNotWanted
		}
		if errors.Is(err, relationship.ErrNotWanted) || errors.Is(err, relationship.ErrEnded) {
			// The relationship may have been deleted meanwhile, or a peer may send any names. Nothing is recorded.
			return peer.Outcome{Refusal: relationship.ReasonNotWanted, Fault: peer.FaultUnclear}
		}
		if err != nil {
			out = intake.Outcome{Result: relationship.ReasonOf(err), Err: err}
			break
		}
		generation, b.Source = b.Rel.Generation, "peer "+home
		if v, out = r.attempt(ctx, home, td, b, document); !errors.Is(out.Err, relationship.ErrSuperseded) {
			break
		}
	}
	received := peer.Outcome{Version: v, Unavailable: out.Local()}
	failure := ""
	if out.Err != nil {
		received.Refusal, received.Fault, received.Final = out.Result, peer.FaultPeer, relationship.IsDecision(
			out.Result,
		)
		failure = relationship.Clip(out.Err.Error())
	}
	if ctx.Err() != nil {
		return received
	}
	r.bundles.WithLabelValues(out.Result).Inc()
	if out.Err != nil {
		level := c.Log.Debug
		if c.LogAllowed(home) {
			if level = c.Log.Warn; relationship.IsDecision(out.Result) {
				c.Intake.Record(intake.ActionRefuse, td, out.Result, failure, 0)
			}
		}
		level(
			"bundle from a peer refused; the stored one is kept",
			"trust_domain",
			td,
			"peer",
			home,
			"result",
			out.Result,
			"error",
			failure,
		)
	} else {
		c.Log.Info("bundle from a peer",
			"trust_domain", td, "peer", home, "result", out.Result, "took", c.Now().Sub(began))
	}
	c.Observations.Attempted(td, generation, c.Now(), out.Err == nil, out.Result, failure)
	return received
}

func (r *Receiver) attempt(
	ctx context.Context,
	home, td string,
	b intake.Basis,
	document []byte,
) (relationship.Version, intake.Outcome) {
	refuse := func(err error) (relationship.Version, intake.Outcome) {
		err = fmt.Errorf("refuse the bundle of %s from the peer %s: %w", td, home, err)
		return relationship.Version{}, intake.Outcome{Result: relationship.ReasonOf(err), Err: err}
	}
	if most := b.Rel.Limits.DocumentBytes; most > 0 && int64(len(document)) > most {
		return refuse(
			fmt.Errorf("%w: it has %d bytes, and its relationship allows %d", bundle.ErrTooLarge, len(document), most),
		)
	}
	next, _, err := bundle.Parse(b.Rel.TrustDomain, document)
	if err != nil {
		return refuse(err)
	}
	if err := b.Current.Accept(next); err != nil {
		if failed := r.config.Intake.CompareBundle(ctx, td, next, b.Origin()); failed != nil {
			return relationship.Version{}, intake.Outcome{
				Result: "not_stored",
				Err:    fmt.Errorf("raise an alarm on the bundle of %s from the peer %s: %w", td, home, failed),
			}
		}
		return refuse(err)
	}
	v := relationship.Version{Digest: next.Digest()}
	v.Sequence, v.Ordered = next.Sequence()
	if b.Current != nil && bytes.Equal(b.Current.Row.GetDocument(), next.Marshal()) {
		return v, intake.Outcome{Result: relationship.ResultUnchanged}
	}
	if _, err := r.config.Intake.Keep(ctx, td, b, next); err != nil {
		err = fmt.Errorf("store the bundle of %s from the peer %s: %w", td, home, err)
		return relationship.Version{}, intake.Outcome{Result: relationship.ReasonOf(err), Err: err}
	}
	return v, intake.Outcome{Result: relationship.ResultStored}
}

// ConfirmBundle counts a heartbeat that names the stored bundle as a success, often enough to keep the bundle fresh.
func (r *Receiver) ConfirmBundle(td string) {
	c := r.config
	e, ok := c.Mirror.Get(td)
	if !ok || e.PeerHome() == "" {
		return
	}
	now := c.Now()
	if r.confirmed.Due(td, now, c.Intake.Interval(e.Rel.PollInterval, e.Holding)/relationship.StaleAfter) {
		c.Observations.Attempted(td, e.Rel.Generation, now, true, relationship.ResultConfirmed, "")
	}
}

// MissingStatements returns the sequence from which statements on a foreign bundle are missing.
func (r *Receiver) MissingStatements(td string) (from uint64, missing bool) {
	return r.config.Intake.LacksStatements(td)
}

// ReceiveStatements checks statements as if the domain's endpoint had served them. If they are not accepted, the
// endpoint is queried for them.
func (r *Receiver) ReceiveStatements(
	ctx context.Context,
	home string,
	m *ententev1.PeerStatements,
) (string, peer.Fault) {
	result, err := r.statements(ctx, home, m)
	fault := FaultOf(result)
	if ctx.Err() != nil {
		return result, fault
	}
	r.config.Intake.StatementsTotal.WithLabelValues(result).Inc()
	if err != nil {
		text, level := "statements from a peer are not accepted now", r.config.Log.Debug
		switch {
		case result == intake.StatementsUnjudged:
			text = "checked statements were not written; they are checked again at the next refresh"
		case fault == peer.FaultPeer:
			text = "statements from a peer refused; its endpoint is queried"
		}
		if fault != peer.FaultUnclear && r.config.LogAllowed(home) {
			level = r.config.Log.Warn // the metric counts all
		}
		level(
			text,
			"trust_domain",
			m.GetTrustDomain(),
			"peer",
			home,
			"result",
			result,
			"error",
			relationship.Clip(err.Error()),
		)
	}
	return result, fault
}

func (r *Receiver) statements(
	ctx context.Context,
	home string,
	m *ententev1.PeerStatements,
) (result string, err error) {
	e, ok := r.config.Mirror.Get(m.GetTrustDomain())
	if !ok || e.PeerHome() != home {
		return relationship.ReasonNotWanted, relationship.ErrNotWanted
	}
	statements, err := statement.ParseList(e.Rel.TrustDomain, m.GetDocument())
	if err == nil && len(statements) == 0 {
		err = endpoint.ErrNoStatements
	}
	if err != nil {
		return relationship.ReasonOf(err), err
	}
	result, err = r.config.Intake.TakeStatements(ctx, m.GetTrustDomain(), statements)
	if err == nil && result != intake.StatementsTaken {
		err = fmt.Errorf("none of %d statements continues what is stored of %s", len(statements), m.GetTrustDomain())
	}
	return result, err
}

// FaultOf decides whose fault the result of checking statements is. What depends on the message alone is the peer's
// fault. What depends on the bundle that is stored here may be this cluster's: a wrong bundle from another source, for
// example, makes a correct statement look forged.
func FaultOf(result string) peer.Fault {
	switch result {
	case intake.StatementsTaken, intake.StatementsUnjudged:
		return peer.FaultNone
	case intake.StatementsEarly,
		relationship.ReasonNotWanted,
		relationship.AlarmSplitView,
		bundle.Reason(statement.ErrSignature):
		return peer.FaultUnclear
	}
	return peer.FaultPeer
}
