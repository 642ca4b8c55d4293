package authority

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	zcrypto "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
	"golang.org/x/time/rate"
)

const (
	// DefaultLintSample has one leaf in a thousand held against the RFCs: at full speed a few a second.
	DefaultLintSample = 1000

	// lintBacklog is how many leaves can wait for zlint, which takes a millisecond or so for each; more are passed over.
	lintBacklog = 16

	// Findings are the same for certificate after certificate. All are counted, the log has these.
	firstFindings  = 10
	findingsPeriod = time.Minute
)

// rfcLints are zlint's lints of the RFCs. What the CA/Browser Forum asks of public web certificates is no matter here.
var rfcLints = sync.OnceValues(func() (lint.Registry, error) {
	return lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lint.SourceList{
		lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC8813,
	}})
})

// Finding is something that zlint has to say about a certificate.
type Finding struct {
	// Lint is zlint's name for it.
	Lint string
	// Details are zlint's words; often none.
	Details string
}

// String is the finding in one line.
func (f Finding) String() string {
	if f.Details == "" {
		return f.Lint
	}
	return f.Lint + ": " + f.Details
}

// unparsable is the finding for what zlint's own parser, which is stricter than Go's, cannot read.
const unparsable = "unparsable"

// Findings returns what zlint's lints of the RFCs have to say about a certificate, warnings and worse, by name.
func Findings(der []byte) ([]Finding, error) {
	registry, err := rfcLints()
	if err != nil {
		return nil, fmt.Errorf("choose zlint's lints: %w", err)
	}
	c, err := zcrypto.ParseCertificate(der)
	if err != nil {
		return []Finding{{unparsable, err.Error()}}, nil //nolint:nilerr // what zlint cannot read is a finding, no failure of ours
	}
	var found []Finding
	for name, result := range zlint.LintCertificateEx(c, registry).Results {
		if result.Status > lint.Notice {
			found = append(found, Finding{name, result.Details})
		}
	}
	slices.SortFunc(found, func(a, b Finding) int { return strings.Compare(a.Lint, b.Lint) })
	return found, nil
}

// second is the second look at what is signed, by zlint. It is no condition of a signature, for which [svid.LintLeaf] and
// [svid.LintCA] stand; what it finds is a defect of this program or of the upstream, to be counted and looked into. CA
// certificates are all looked at, before they are used; leaves by sample, by a goroutine of their own, so that no
// signature waits for it.
type second struct {
	sample   uint64 // one leaf in so many; 0: none
	signed   atomic.Uint64
	backlog  chan []byte
	log      hclog.Logger
	seldom   rate.Sometimes
	looked   *prometheus.CounterVec
	findings *prometheus.CounterVec
}

func newSecond(sample int, log hclog.Logger, r prometheus.Registerer) (*second, error) {
	s := &second{
		sample: uint64(max(sample, 0)), backlog: make(chan []byte, lintBacklog), log: log,
		seldom: rate.Sometimes{First: firstFindings, Interval: findingsPeriod},
		looked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_authority_zlint_certificates_total",
			Help: "Certificates that zlint was to look at, by what they are (ca, leaf) and result: clean, finding, skipped (zlint did not keep up).",
		}, []string{"certificate", "result"}),
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_authority_zlint_findings_total",
			Help: "Findings of zlint, by what the certificate is (ca, leaf) and zlint's name of the lint. The certificates broke no rule for SVIDs and were issued.",
		}, []string{"certificate", "lint"}),
	}
	for _, certificate := range []string{"ca", "leaf"} {
		for _, result := range []string{"clean", "finding", "skipped"} {
			s.looked.WithLabelValues(certificate, result)
		}
	}
	if r != nil {
		for _, c := range []prometheus.Collector{s.looked, s.findings} {
			if err := r.Register(c); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// leaf takes note of a leaf that was signed, and now and then has it looked at. It never waits.
func (s *second) leaf(der []byte) {
	if s.sample == 0 || (s.signed.Add(1)-1)%s.sample != 0 {
		return
	}
	select {
	case s.backlog <- der:
	default:
		s.looked.WithLabelValues("leaf", "skipped").Inc()
	}
}

// run looks at leaves until ctx ends.
func (s *second) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case der := <-s.backlog:
			s.look("leaf", der)
		}
	}
}

func (s *second) look(certificate string, der []byte) {
	found, err := Findings(der)
	if err != nil {
		s.log.Error("cannot lint a certificate", "error", err)
		return
	}
	if len(found) == 0 {
		s.looked.WithLabelValues(certificate, "clean").Inc()
		return
	}
	s.looked.WithLabelValues(certificate, "finding").Inc()
	for _, f := range found {
		s.findings.WithLabelValues(certificate, f.Lint).Inc()
	}
	s.seldom.Do(func() {
		s.log.Warn("zlint has findings about a certificate that was issued; please look into it", "certificate", certificate, "findings", fmt.Sprint(found), "fingerprint", svid.Fingerprint(der))
	})
}

// ca looks at what an upstream signed.
func (s *second) ca(signed *upstream.Signed) {
	for _, c := range slices.Concat(signed.Chain, signed.Anchors) {
		s.look("ca", c.Raw)
	}
}
