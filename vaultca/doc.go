// Package vaultca takes the signing certificates of this member from Vault's PKI secrets engine. It implements
// [upstream.Upstream].
//
// An [Upstream] has one PKI mount for each hosted trust domain. Two domains never share a mount or a root: below a
// shared root, either could issue the names of the other.
//
//   - A signing certificate comes from <mount>/issuer/<ref>/sign-intermediate, with the name, path length and lifetime
//     that the member requires; only the key is taken from the request. [Examine] checks the answer before it is used:
//     key, name, usages, lifetime, and the chain to an anchor.
//   - Anchors are the self-signed tops of the chains of the configured issuers ([Tops]), or the certificates of a file.
//     Other issuers in the mount do not count. Anchors are read without a login, again and again while [Upstream.Run]
//     runs, so that a new root is known within 30 seconds.
//   - A failure has a name, a metric, and one line in the log when it begins and one when it ends.
//
// Package vault below makes the calls, and keeps the login alive. Package transit keeps signing keys in Vault's
// Transit.
//
// The package never retries a login that Vault refuses without a pause. [Policies] prints the rights that
// it needs, and [Check] tries them. Start reading at upstream.go.
package vaultca
