//go:build !race

package bundle_test

// mostMemory is what one fetch may cost.
const mostMemory = 16 << 20
