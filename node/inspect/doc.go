// Package inspect does what commands can do without a member: it reads bundles and snapshots from files, checks a saved
// bundle against statements and a cluster's history, and prints and tests the Vault policy of a configuration.
//
// Its reports are values with JSON field names. Nothing in it opens a connection but [CheckVault].
package inspect
