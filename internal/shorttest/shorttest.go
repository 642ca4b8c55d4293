// Package shorttest leaves slow tests out of the run for the inner loop, `make quick`. Fixtures that start real
// servers, clusters of several members or other processes call [Skip], so a test is left out because of what it uses.
// `make test` runs everything.
package shorttest

import "testing"

// Skip skips the test under -short. The reason is a phrase such as "starts Vault", which `make quick` prints.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if testing.Short() {
		t.Skip("left out: " + reason)
	}
}
