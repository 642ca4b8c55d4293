// Package record keeps the cluster's record of administrative changes, and copies it into the audit log of every
// member.
//
// The audit log of a member is a file on its disk. Who takes the member over, or loses it, takes over or loses that
// file. Therefore each administrative change is also a row of a replicated table: who made it, on which member, and
// what was changed. The transaction that makes the change writes the row ([Call]), so that one is not committed without
// the other, and at the same revision. Every member follows the table and writes each row as a line into its own audit
// log ([Copier]), its own changes included.
//
// The table is bounded in rows and bytes. A member that was away for longer than the table reaches back names the gap
// in its audit log, by the numbers of the changes.
//
// A member can propose any change of any table. The record therefore holds what honest members did, and what a
// compromised member did by the software that it was given. A compromised member with other software can omit rows and
// delete rows. The leader refuses rows in the name of another member than the one that sent them, so that only a
// compromised leader can write such rows. No member can take back what others have copied. A deletion before that
// shows as a gap, a row in the name of another member as a line without the other two lines of its call in the audit
// log of that member.
package record
