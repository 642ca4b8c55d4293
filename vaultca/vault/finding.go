package vault

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// Severity is the severity of a [Finding].
type Severity string

// The severities: it works, it works but is dangerous, it keeps a member from signing.
const (
	OK      Severity = "ok"
	Warning Severity = "warning"
	Failure Severity = "failure"
)

// Finding is one result of a check.
type Finding struct {
	Severity Severity
	// Subject is the subject of the check: "login", or a trust domain with "anchors", "signing", "rights" or "roles".
	Subject string
	// Detail is a sentence with the result, and with the remedy for a problem.
	Detail string
}

// Checker collects findings.
type Checker struct {
	Caller   *Caller
	Findings []Finding
}

// Add adds a finding. The arguments are those of [fmt.Sprintf].
func (k *Checker) Add(s Severity, subject, format string, a ...any) {
	k.Findings = append(k.Findings, Finding{s, subject, fmt.Sprintf(format, a...)})
}

// Prepare opens a caller, which the user of the checker closes. It returns false if it cannot, which is a finding.
func (k *Checker) Prepare(c Config) bool {
	c.Registerer = nil
	caller, err := Open(c)
	if err != nil {
		k.Add(Failure, "configuration", "%v", err)
		return false
	}
	k.Caller = caller
	return true
}

// Login adds a finding on the lifetime of a login, and renews it if it is renewable.
func (k *Checker) Login(ctx context.Context, s *Session) {
	switch {
	case s.ttl == 0:
		k.Add(
			Warning,
			"login",
			"logged in by %s with a token that never ends; use one that does, or another auth method",
			k.Caller.Config.Auth.Method(),
		)
		return
	case !s.renewable && k.Caller.Config.Auth.Method() == "token":
		k.Add(
			Warning,
			"login",
			"logged in by token, which cannot be renewed and ends in %v; use a periodic token or another auth method",
			s.life,
		)
		return
	case s.renewable:
		if _, err := k.Caller.Renew(ctx, s); err != nil {
			k.Add(
				Warning,
				"login",
				"logged in by %s, but the login cannot be renewed: %v",
				k.Caller.Config.Auth.Method(),
				err,
			)
			return
		}
	}
	k.Add(OK, "login", "logged in by %s, for %v", k.Caller.Config.Auth.Method(), s.life)
}

// Worst returns the severity that decides the exit code of a command.
func Worst(findings []Finding) Severity {
	order := []Severity{OK, Warning, Failure}
	return slices.MaxFunc(append(findings, Finding{Severity: OK}), func(a, b Finding) int {
		return cmp.Compare(slices.Index(order, a.Severity), slices.Index(order, b.Severity))
	}).Severity
}
