//go:build !race

package endpoint_test

// mostMemory is what one fetch may cost.
const mostMemory = 16 << 20
