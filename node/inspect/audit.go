package inspect

import "github.com/ententehq/entente/access/audit"

// AuditReport describes audit logs that are whole.
type AuditReport struct {
	Lines     int `json:"lines"`
	Unchained int `json:"unchained"`
	Fragments int `json:"fragments"`
}

// Audit verifies the audit logs of a member, the oldest first.
func Audit(paths ...string) (AuditReport, error) {
	v, err := audit.Verify(paths...)
	return AuditReport(v), err
}
