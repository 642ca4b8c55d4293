package port

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/ententehq/entente/internal/logthrottle"
)

// Reason is why a connection was refused or closed. It is the label of a metric, and the set is fixed.
type Reason string

// The reasons.
const (
	ReasonNoProtocol       Reason = "no_protocol"
	ReasonSeveralProtocols Reason = "several_protocols"
	ReasonTimeout          Reason = "handshake_timeout"
	ReasonHandshake        Reason = "handshake_failed"
	ReasonBusy             Reason = "too_many_handshakes"
	ReasonTooMany          Reason = "too_many_connections"
	ReasonGaveWay          Reason = "gave_way"
	ReasonRefused          Reason = "calls_refused"
	ReasonUnread           Reason = "unread"
	ReasonBarred           Reason = "barred"
	ReasonNotServed        Reason = "not_served"
	ReasonNoCertificate    Reason = "no_certificate"
	ReasonUnknownIdentity  Reason = "unknown_identity"
	ReasonNotJoined        Reason = "not_joined"
	ReasonWrongIdentity    Reason = "wrong_identity"
	ReasonNoOwnSVID        Reason = "no_own_svid"
	ReasonMalformedSVID    Reason = "malformed_svid"
	ReasonUntrustedDomain  Reason = "untrusted_domain"
	ReasonUnverifiedSVID   Reason = "unverified_svid"
	ReasonExpiredSVID      Reason = "expired_svid"
	ReasonEarlySVID        Reason = "svid_not_yet_valid"
	ReasonMoved            Reason = "address_changed"
	ReasonLifetime         Reason = "lifetime_over"
)

// Refusal is the error of a connection that was not admitted.
type Refusal struct {
	Reason Reason
	Detail string
}

func (r *Refusal) Error() string { return r.Detail }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// ReasonOf returns the reason of a [Refusal], [ReasonTimeout] for an expired deadline, and [ReasonHandshake] for any
// other error.
func ReasonOf(err error) Reason {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Reason
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return ReasonTimeout
	}
	return ReasonHandshake
}

// The rate limit of log lines for refusals with one reason. It shows what happens, and keeps unauthenticated callers
// from filling the disk.
const (
	logBurst = 5
	logRate  = rate.Limit(0.1)
)

// telemetry counts the connections that the port accepts, refuses and closes, and logs refusals at a limited rate.
type telemetry struct {
	logger   hclog.Logger
	sample   func(Sample) // nil if nobody takes samples
	open     *prometheus.GaugeVec
	accepted *prometheus.CounterVec
	refused  *prometheus.CounterVec
	closed   *prometheus.CounterVec

	mu       sync.Mutex
	limiters map[Reason]*rate.Limiter
	skipped  map[Reason]int // refusals without a log line since the last one
}

// Sample is one of the connections that were refused for a reason.
type Sample struct {
	Remote   net.Addr
	Protocol Protocol // empty before it is known
	Reason   Reason
	Detail   string
	// Omitted is how many connections were refused for this reason since the last sample.
	Omitted int
}

func newTelemetry(logger hclog.Logger, r prometheus.Registerer, sample func(Sample)) (*telemetry, error) {
	l := &telemetry{
		logger: logthrottle.Unlimited(logger), // mayLog limits its lines by reason
		sample: sample,
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "entente_port_connections", Help: "Open connections by protocol and direction.",
		}, []string{"protocol", "direction"}),
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_port_accepted_total", Help: "Connections whose caller was verified, by protocol.",
		}, []string{"protocol"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_port_refused_total", Help: "Refused connections, by protocol (none before it is known) " +
				"and reason.",
		}, []string{"protocol", "reason"}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_port_closed_total", Help: "Connections that were closed after a failed recheck or at the " +
				"end of their lifetime, by protocol and reason.",
		}, []string{"protocol", "reason"}),
		limiters: make(map[Reason]*rate.Limiter),
		skipped:  make(map[Reason]int),
	}
	if r == nil {
		return l, nil
	}
	for _, c := range []prometheus.Collector{l.open, l.accepted, l.refused, l.closed} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register the port's metrics: %w", err)
		}
	}
	return l, nil
}

// refusedFrom counts and logs one refused connection.
func (t *telemetry) refusedFrom(remote net.Addr, protocol Protocol, err error) {
	reason := ReasonOf(err)
	label := string(protocol)
	if label == "" {
		label = "none"
	}
	t.refused.WithLabelValues(label, string(reason)).Inc()
	if errors.Is(err, io.EOF) {
		// Port scanners and health checks of load balancers open and close connections.
		t.logger.Trace("connection closed before its handshake", "remote", remote)
		return
	}
	skipped, ok := t.mayLog(reason)
	if !ok {
		return
	}
	args := []any{"remote", remote, "protocol", label, "reason", reason, "error", err}
	if skipped > 0 {
		args = append(args, logthrottle.Omitted, skipped)
	}
	level := hclog.Warn
	if reason == ReasonNotJoined {
		level = hclog.Info // the leader often connects before the joiner has its answer
	}
	t.logger.Log(level, "connection refused", args...)
	if t.sample != nil {
		t.sample(Sample{Remote: remote, Protocol: protocol, Reason: reason, Detail: err.Error(), Omitted: skipped})
	}
}

// mayLog reports whether a refusal with this reason may be logged now, and how many were not logged since the last.
func (t *telemetry) mayLog(reason Reason) (skipped int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	limiter := t.limiters[reason]
	if limiter == nil {
		limiter = rate.NewLimiter(logRate, logBurst)
		t.limiters[reason] = limiter
	}
	if !limiter.Allow() {
		t.skipped[reason]++
		return 0, false
	}
	skipped = t.skipped[reason]
	t.skipped[reason] = 0
	return skipped, true
}
