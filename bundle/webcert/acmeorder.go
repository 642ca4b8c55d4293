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

// orderTimeout bounds one order, from the first question to the ACME server to the certificate. [Orders] gives a name
// away again only later than that.
const orderTimeout = 2 * time.Minute

// acmeReason says why there is no new certificate. It is a metric label, and stands in the log.
type acmeReason string

const (
	reasonUnreachable acmeReason = "unreachable"    // the ACME server does not answer, or does not verify
	reasonValidation  acmeReason = "not_validated"  // it did not find the name to lead to this cluster
	reasonRateLimited acmeReason = "rate_limited"   // it wants less orders
	reasonRefused     acmeReason = "refused"        // it does not serve this name or this account
	reasonTimeout     acmeReason = "timeout"        // it took longer than orderTimeout
	reasonCluster     acmeReason = "cluster"        // the members could not agree whose turn it is
	reasonDisk        acmeReason = "data_folder"    // account, key or certificate could not be read or written
	reasonServer      acmeReason = "server_failure" // it says that it has a fault
)

var acmeReasons = []acmeReason{
	reasonUnreachable, reasonValidation, reasonRateLimited, reasonRefused, reasonTimeout, reasonCluster, reasonDisk, reasonServer,
}

// whyNot names what ended an order.
func whyNot(err error) acmeReason {
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

// waitAfter says how long to wait after an order failed, the nth in a row. What mends itself is tried again soon. Where
// the server said no, five orders at most fall into one hour, which is what public servers let one name fail.
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

// jittered spreads a wait over a fifth, always upwards, so that members do not go in step.
func jittered(d time.Duration) time.Duration {
	return d + rand.N(d/5+1) //nolint:gosec // spreads load, hides nothing
}

// acmeIssuer is certmagic's, with a bound in time, and with results that are counted and told.
type acmeIssuer struct {
	*certmagic.ACMEIssuer
	acme *ACME
}

// PreCheck implements [certmagic.PreChecker]. Nobody is ever asked anything at a terminal.
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
	case ctx.Err() == nil: // else the member stops, or the name is wanted no more
		i.acme.record(csr.DNSNames[0], whyNot(err), err)
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

// record tells of a failed order.
func (a *ACME) record(host string, reason acmeReason, err error) {
	a.orders.WithLabelValues(string(reason)).Inc()
	err = errors.New(clipTo(fmt.Sprint(err), 500)) // its text may be the server's
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

// clipTo makes a text of others fit for a log: bounded, on one line.
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
