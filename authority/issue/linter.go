package issue

import (
	"context"
	"crypto/fips140"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	zcrypto "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/upstream"
)

const (
	// DefaultLintSample has one leaf in a thousand checked against the RFCs: a few a second at full speed.
	DefaultLintSample = 1000

	// lintBacklog is the number of leaves that can wait for zlint, which takes about a millisecond for each. Further
	// ones are skipped.
	lintBacklog = 16
)

// rfcLints returns zlint's lints of the RFCs, without those of the CA/Browser Forum for public web certificates, and
// without the one that requires name constraints to be critical: those of roots are not, on purpose.
var rfcLints = sync.OnceValues(func() (lint.Registry, error) {
	return lint.GlobalRegistry().Filter(lint.FilterOptions{
		ExcludeNames: []string{"e_ext_name_constraints_not_critical"},
		IncludeSources: lint.SourceList{
			lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC8813,
		},
	})
})

// finding is a result of zlint for a certificate.
type finding struct {
	lint    string // zlint's name of the lint
	details string // often empty
}

// String returns the finding in one line.
func (f finding) String() string {
	if f.details == "" {
		return f.lint
	}
	return f.lint + ": " + f.details
}

// unparsable is the finding for a certificate that zlint's own parser, which is stricter than Go's, rejects.
const unparsable = "unparsable"

// findingsOf returns the warnings and errors of zlint for a certificate, in the order of their names. zlint's parser
// computes MD5 and SHA-1 fingerprints of every certificate. Nothing reads them, and they protect nothing, so that
// GODEBUG=fips140=only, under which they panic, is not enforced here.
func findingsOf(der []byte) (found []finding, err error) {
	fips140.WithoutEnforcement(func() { found, err = lintRFC(der) })
	return found, err
}

func lintRFC(der []byte) ([]finding, error) {
	registry, err := rfcLints()
	if err != nil {
		return nil, fmt.Errorf("choose zlint's lints: %w", err)
	}
	c, err := zcrypto.ParseCertificate(der)
	if err != nil {
		//nolint:nilerr // a certificate that zlint rejects is a finding
		return []finding{{unparsable, err.Error()}}, nil
	}
	var found []finding
	for name, result := range zlint.LintCertificateEx(c, registry).Results {
		if result.Status > lint.Notice {
			found = append(found, finding{name, result.Details})
		}
	}
	slices.SortFunc(found, func(a, b finding) int { return strings.Compare(a.lint, b.lint) })
	return found, nil
}

// Linter checks what was signed with zlint. It is no condition of a signature, which [svid.LintLeaf] and [svid.LintCA]
// are: a finding is a defect of this program or of the upstream, to be counted and looked into. All CA certificates are
// checked, before they are used; leaves by sample, in the goroutine of [Linter.Run], so that no signature waits.
type Linter struct {
	sample   uint64 // one leaf in so many; 0 for none
	signed   atomic.Uint64
	backlog  chan []byte
	log      hclog.Logger
	checked  *prometheus.CounterVec
	findings *prometheus.CounterVec
}

// NewLinter returns a linter that checks one leaf in sample, and none if sample is negative. A nil r leaves the metrics
// unregistered.
func NewLinter(sample int, log hclog.Logger, r prometheus.Registerer) (*Linter, error) {
	s := &Linter{
		sample: uint64(max(sample, 0)), backlog: make(chan []byte, lintBacklog), log: log,
		checked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_authority_zlint_certificates_total",
			Help: "Certificates for zlint, by type (ca, leaf) and result: clean, finding, skipped (zlint did not " +
				"keep up).",
		}, []string{"certificate", "result"}),
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_authority_zlint_findings_total",
			Help: "Findings of zlint, by type of the certificate (ca, leaf) and zlint's name of the lint. The " +
				"certificates broke no rule for SVIDs and were issued.",
		}, []string{"certificate", "lint"}),
	}
	for _, certificate := range []string{"ca", "leaf"} {
		for _, result := range []string{"clean", "finding", "skipped"} {
			s.checked.WithLabelValues(certificate, result)
		}
	}
	if r != nil {
		for _, c := range []prometheus.Collector{s.checked, s.findings} {
			if err := r.Register(c); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// Leaf queues a signed leaf if it belongs to the sample. It never blocks.
func (s *Linter) Leaf(der []byte) {
	if s.sample == 0 || (s.signed.Add(1)-1)%s.sample != 0 {
		return
	}
	select {
	case s.backlog <- der:
	default:
		s.checked.WithLabelValues("leaf", "skipped").Inc()
	}
}

// Run checks queued leaves until ctx ends, and returns its error.
func (s *Linter) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case der := <-s.backlog:
			s.check("leaf", der)
		}
	}
}

func (s *Linter) check(certificate string, der []byte) {
	found, err := findingsOf(der)
	if err != nil {
		s.log.Error("cannot lint a certificate", "error", err)
		return
	}
	if len(found) == 0 {
		s.checked.WithLabelValues(certificate, "clean").Inc()
		return
	}
	s.checked.WithLabelValues(certificate, "finding").Inc()
	for _, f := range found {
		s.findings.WithLabelValues(certificate, f.lint).Inc()
	}
	s.log.Warn("zlint has findings for an issued certificate; please report them",
		"certificate", certificate, "findings", fmt.Sprint(found), "fingerprint", svid.Fingerprint(der))
}

// CA checks the certificates that an upstream returned.
func (s *Linter) CA(signed *upstream.Signed) {
	for _, c := range slices.Concat(signed.Chain, signed.Anchors) {
		s.check("ca", c.Raw)
	}
}
