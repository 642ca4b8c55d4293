//go:build !race

package endpoint_test

// mostMemory bounds the memory of one fetch.
const mostMemory = 16 << 20
