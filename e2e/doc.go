// Package e2e holds the tests of the whole: members as real processes, and the rules that no single room can test by itself.
//
// It has no code of its own beside its tests. Start with imports_test.go, which holds the rooms apart.
package e2e
