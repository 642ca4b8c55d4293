//go:build race

package endpoint_test

// mostMemory is twice the bound without the race detector, which uses additional memory per allocation.
const mostMemory = 32 << 20
