// Package process tunes the Go runtime of a member's process: [PaceCollector] sets how much garbage the collector
// keeps, and [BoundMemory] keeps to the memory of the control group.
package process
