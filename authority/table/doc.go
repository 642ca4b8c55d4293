// Package table declares the replicated tables of hosted trust domains, and converts their rows to the values of
// package plan.
//
// The functions that write take a transaction and hold what has to be true of the rows together: a revoked anchor is
// remembered until it would have expired, a tainted or revoked authority too, and a state transition sets the time of
// that transition. Which transition is due is decided by package plan, and when it is carried out by package
// authority.
package table
