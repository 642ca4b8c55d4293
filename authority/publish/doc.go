// Package publish maintains the trust bundles of hosted domains: content, sequence, version history and signed
// statements.
//
// A bundle is the union of what verifies the domain's authorities, and of the published anchors of its upstream. Every
// transaction that changes an authority or a domain ends with [Publisher.Publish] or [Publisher.Finish]. The sequence
// rises by one for each change of the document, in the transaction that makes the change, and never falls.
//
// Each version is kept in the history with a signed statement that continues the statement before it. It is signed by a
// JWT authority that the version before names: inside the transaction if the member holds such a key in memory, and
// otherwise right after it by [Signer]. Where no such key is left, the chain restarts, and the statement gives the
// reason.
//
// Start reading with content.go, then statement.go.
package publish
