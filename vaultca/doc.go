// Package vaultca takes the signing certificates of this member from Vault's PKI secrets engine, and can keep its
// signing keys in Vault's Transit secrets engine. It implements [upstream.Upstream] and [keys.Store].
//
// An [Upstream] has one PKI mount for each trust domain that is hosted. Two domains never share a mount or a root:
// whoever signs below a shared root could name anybody in either domain.
//
//   - A signing certificate comes from <mount>/issuer/<ref>/sign-intermediate, with the name, path length and lifetime
//     that Entente asks for; nothing in it is taken from the request but the key. What Vault answers is checked by
//     [Examine] before anybody sees it: key, name, usages, lifetime, and the chain to an anchor.
//   - Anchors are the self-signed tops of the chains of the configured issuers ([Tops]), or the certificates of a file.
//     Other issuers in the mount do not count. Anchors are read without a token, again and again while
//     [Upstream.Run] runs, so that a new root is known within 30 seconds.
//   - A login is renewed at two thirds of its life, made anew when it cannot be renewed further, and made anew when
//     Vault answers 403. Secrets, token files, client certificates and the CA file are read again each time they are used.
//   - Every answer is bounded in size, every call in time. What may pass is tried again, with growing and random pauses.
//     What went wrong has a name ([Reason]), a metric, and one line in the log when it begins and one when it ends.
//
// Package vault below makes the calls. Package transit keeps signing keys in Vault's Transit.
//
// The package never logs in again and again with what Vault refuses. [Policy] and [Policies] print the rights that it
// needs, and [Check] tries them. Start reading at upstream.go.
package vaultca
