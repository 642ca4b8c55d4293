// Package chaos plans the faults of `make chaos`, and judges what clients saw meanwhile.
//
// [Steps] is the schedule: a pure function of a seed. A [History] is what the clients of a run recorded, and each Check
// function is a pure function over it that returns what was wrong, one sentence a fault. The tests of this package show
// for each check that it can fail. What injects the faults and makes the load is in the tests of e2e; what one fault
// of a disk does to a process is in faultfs, a module of its own.
//
// The package is linked into tests only.
package chaos
