// Package transit keeps signing keys in Vault's Transit secrets engine.
//
// A [Store] makes a key for each authority in Vault, and the key never leaves it. A signature is one call, bounded in
// time, and verified with the public half that was pinned when the key was made. The store answers everything else from
// an index on this machine, with Vault sealed too.
//
// Keys that Vault no longer has are found, and an outage is never taken for a lost key. [Rights] returns the rights
// that all of this needs, and [Check] tries them. Start reading at transit.go.
package transit
