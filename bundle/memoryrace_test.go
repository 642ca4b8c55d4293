//go:build race

package bundle_test

// mostMemory is twice what it is without: the race detector keeps memory of its own beside what is allocated.
const mostMemory = 32 << 20
