// Package backup saves snapshots of the replicated state on a schedule, into a folder, and opens them again.
//
// Every member with a block `snapshots` in its configuration saves its own: [Schedule.Run] saves one when the newest in
// the folder is as old as the interval, and then removes the oldest beyond those to keep. A snapshot is checked while
// it is written, and its file is read back before it gets its name, so that a file with a name is whole. With
// recipients it is encrypted by age (age-encryption.org), and a member cannot read its own snapshots.
//
// [Reader] reads a snapshot of either kind, for the commands that restore and inspect one.
package backup
