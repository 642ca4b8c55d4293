// Package audit keeps the audit log of one member: who did what to which object, when, and with which result.
//
// [Log] is a file of JSON lines that only its owner can read. Lines are appended and never changed. Each line is one
// write, is bounded in size and holds printable text only. [Log.Tail] reads the latest events and follows new ones.
//
// What cannot be audited is not done. [Do] runs an action between two lines, "begun" and "done" or "failed", and is the
// only place that decides what happens when a line cannot be written; start reading there. A decision that has no
// duration, such as a refusal, is one call of [Log.Record].
//
// The log keeps room for some ten thousand lines beyond its end, so that a full disk does not stop what it records.
//
// The log does not filter and does not rotate itself: [Log.Reopen] follows a rotation from outside.
package audit
