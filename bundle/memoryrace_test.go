//go:build race

package bundle_test

// mostMemory is twice the bound without the race detector, which keeps memory of its own for each allocation.
const mostMemory = 32 << 20
