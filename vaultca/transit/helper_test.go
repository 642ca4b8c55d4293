package transit

import (
	"sync"

	"github.com/ententehq/entente/vaultca/vault"
)

func policyText(p PolicyFor) string {
	return vault.PrintRights(append(Rights(p), vault.LoginRights()...))
}

func secretText(s string) vault.Secret { return func() (string, error) { return s, nil } }

// logLines is a log that tests read while it is written.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}
