// Package e2e has the tests of the whole system: members as real processes, and rules that concern several packages.
//
// It has no code besides its tests. Start with imports_test.go, which has the allowed imports of all packages.
package e2e
