package webcert

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// orderTimeout bounds one order, from the first request to the certificate. The lease of an order is longer.
const orderTimeout = 2 * time.Minute

// acmeReason is the reason why there is no new certificate, for a metric and the log.
type acmeReason string

const (
	// the ACME server does not answer, or its certificate does not verify
	reasonUnreachable acmeReason = "unreachable"
	reasonValidation  acmeReason = "not_validated"  // the name does not lead to this cluster
	reasonRateLimited acmeReason = "rate_limited"   // too many orders
	reasonRefused     acmeReason = "refused"        // the server does not serve this name or this account
	reasonTimeout     acmeReason = "timeout"        // it took longer than orderTimeout
	reasonCluster     acmeReason = "cluster"        // the members could not agree on the order
	reasonDisk        acmeReason = "data_folder"    // account, key or certificate could not be read or written
	reasonServer      acmeReason = "server_failure" // the server reports an internal error
)

var acmeReasons = []acmeReason{
	reasonUnreachable, reasonValidation, reasonRateLimited, reasonRefused, reasonTimeout, reasonCluster, reasonDisk,
	reasonServer,
}

// reasonOf returns the reason of a failed order.
func reasonOf(err error) acmeReason {
	var problem acme.Problem
	var disk *fs.PathError
	switch {
	case errors.As(err, &problem):
	case errors.Is(err, errOrders):
		return reasonCluster
	case errors.As(err, &disk):
		return reasonDisk
	case errors.Is(err, context.DeadlineExceeded):
		return reasonTimeout
	default:
		return reasonUnreachable
	}
	name := problem.Type[strings.LastIndexByte(problem.Type, ':')+1:]
	switch {
	case name == "rateLimited" || problem.Status == http.StatusTooManyRequests:
		return reasonRateLimited
	case name == "serverInternal" || problem.Status >= http.StatusInternalServerError:
		return reasonServer
	}
	switch name {
	case "unauthorized", "connection", "dns", "tls", "incorrectResponse", "caa":
		return reasonValidation
	}
	return reasonRefused
}

// waitAfter returns the pause after the nth failed order in a row. Failures that end by themselves are retried soon.
// After a refusal at most five orders fall into one hour, the limit of public servers for one name.
func waitAfter(reason acmeReason, failures int) time.Duration {
	first, most := 2*time.Minute, 6*time.Hour
	switch reason {
	case reasonUnreachable, reasonCluster, reasonDisk:
		first, most = 2*time.Second, 5*time.Minute
	case reasonRateLimited:
		first = time.Hour
	}
	n := min(max(failures-1, 0), 16)
	return min(first<<n, most)
}

// jittered extends a wait by up to a fifth, so that members do not retry at the same time.
func jittered(d time.Duration) time.Duration {
	return d + rand.N(d/5+1) //nolint:gosec // spreads load, no secret
}

// acmeIssuer is certmagic's issuer with a time limit, and counts and records results.
type acmeIssuer struct {
	*certmagic.ACMEIssuer
	acme *ACME
}

// PreCheck implements [certmagic.PreChecker]. It never prompts at a terminal.
func (i *acmeIssuer) PreCheck(ctx context.Context, names []string, _ bool) error {
	return i.ACMEIssuer.PreCheck(ctx, names, false)
}

// Issue implements [certmagic.Issuer].
func (i *acmeIssuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	i.acme.inFlight.Add(1)
	defer i.acme.inFlight.Done()
	limited, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	issued, err := i.ACMEIssuer.Issue(limited, csr)
	if len(csr.DNSNames) != 1 {
		return issued, err
	}
	switch {
	case err == nil:
		i.acme.succeeded(csr.DNSNames[0])
	case ctx.Err() == nil: // else the member stops, or the name is no longer needed
		i.acme.record(csr.DNSNames[0], reasonOf(err), err)
	}
	return issued, err
}

func (a *ACME) succeeded(host string) {
	a.orders.WithLabelValues("ok").Inc()
	a.mu.Lock()
	delete(a.states, host)
	a.mu.Unlock()
	a.config.Logger.Info("bundle endpoint has a new certificate", "host", host, "from", a.config.Directory)
}

// record logs and counts a failed order.
func (a *ACME) record(host string, reason acmeReason, err error) {
	a.orders.WithLabelValues(string(reason)).Inc()
	err = errors.New(clipTo(fmt.Sprint(err), 500)) // its text may come from the server
	a.mu.Lock()
	state := a.states[host]
	state.failures, state.reason, state.err = state.failures+1, reason, err
	a.states[host] = state
	a.mu.Unlock()
	fields := []any{"host", host, "from", a.config.Directory, "reason", string(reason), "error", err}
	if cert, ok := a.newest(host); ok {
		a.config.Logger.Warn(
			"bundle endpoint keeps its certificate: no new one could be had",
			append(fields, "expires", cert.Leaf.NotAfter)...)
		return
	}
	a.config.Logger.Warn("bundle endpoint has no certificate yet: none could be had", fields...)
}

// clipTo returns a text of other origin in a form fit for a log: bounded, on one line.
func clipTo(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
