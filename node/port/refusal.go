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
)

// Reason names why a connection was refused or closed. It is a metric's label: the set is fixed.
type Reason string

// The reasons.
const (
	ReasonNoProtocol       Reason = "no_protocol"
	ReasonSeveralProtocols Reason = "several_protocols"
	ReasonTimeout          Reason = "handshake_timeout"
	ReasonHandshake        Reason = "handshake_failed"
	ReasonBusy             Reason = "too_many_handshakes"
	ReasonTooMany          Reason = "too_many_connections"
	ReasonNotServed        Reason = "not_served"
	ReasonNoCertificate    Reason = "no_certificate"
	ReasonUnknownIdentity  Reason = "unknown_identity"
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

func refuse(reason Reason, detail string) *Refusal { return &Refusal{Reason: reason, Detail: detail} }

// ReasonOf returns the reason that err carries, [ReasonTimeout] for an expired time bound, and
// [ReasonHandshake] for any other error.
func ReasonOf(err error) Reason {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Reason
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return ReasonTimeout
	}
	return ReasonHandshake
}

// logged is how many refusals of one reason are logged at once, and each how often after that: enough to
// see what goes on, too little for a stranger to fill a disk with.
const (
	loggedAtOnce = 5
	loggedEach   = rate.Limit(0.1)
)

// ledger counts what the port admits, refuses and closes, and logs refusals at a bounded rate.
type ledger struct {
	logger   hclog.Logger
	open     *prometheus.GaugeVec
	accepted *prometheus.CounterVec
	refused  *prometheus.CounterVec
	closed   *prometheus.CounterVec

	mu       sync.Mutex
	limiters map[Reason]*rate.Limiter
	silent   map[Reason]int
}

func newLedger(logger hclog.Logger, r prometheus.Registerer) (*ledger, error) {
	l := &ledger{
		logger: logger,
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "entente_port_connections", Help: "Open connections by protocol and direction.",
		}, []string{"protocol", "direction"}),
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_port_accepted_total", Help: "Connections whose caller was verified, by protocol.",
		}, []string{"protocol"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_port_refused_total", Help: "Connections that were refused, by protocol (none before it is known) and reason.",
		}, []string{"protocol", "reason"}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_port_closed_total", Help: "Connections that were closed because they no longer pass, by protocol and reason.",
		}, []string{"protocol", "reason"}),
		limiters: make(map[Reason]*rate.Limiter),
		silent:   make(map[Reason]int),
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

// refusedFrom notes one refused connection.
func (l *ledger) refusedFrom(remote net.Addr, protocol Protocol, err error) {
	reason := ReasonOf(err)
	label := string(protocol)
	if label == "" {
		label = "none"
	}
	l.refused.WithLabelValues(label, string(reason)).Inc()
	if errors.Is(err, io.EOF) {
		// Port scanners and load balancers' health checks open and close; that is no news.
		l.logger.Trace("connection closed before its handshake", "remote", remote)
		return
	}
	silent, ok := l.mayLog(reason)
	if !ok {
		return
	}
	args := []any{"remote", remote, "protocol", label, "reason", reason, "error", err}
	if silent > 0 {
		args = append(args, "not_logged_before", silent)
	}
	l.logger.Warn("connection refused", args...)
}

// mayLog says whether a refusal of this reason is to be logged now, and how many were passed over since
// the last that was.
func (l *ledger) mayLog(reason Reason) (silent int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter := l.limiters[reason]
	if limiter == nil {
		limiter = rate.NewLimiter(loggedEach, loggedAtOnce)
		l.limiters[reason] = limiter
	}
	if !limiter.Allow() {
		l.silent[reason]++
		return 0, false
	}
	silent = l.silent[reason]
	l.silent[reason] = 0
	return silent, true
}
