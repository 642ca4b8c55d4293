// Package keys keeps the private keys of a member: its signing keys and those of its own roots.
//
// A [Store] creates, returns, lists and deletes keys by name, and keeps the certificate of a root beside its key.
// [Folder] stores them on disk, one PEM file each with mode 0600; [Memory] keeps them until the process ends. Package
// vaultca has a store whose keys never leave Vault's Transit.
//
// A folder can have an [Encryption]: a data key encrypts its files, and a [Wrapper] encrypts the data key with a key
// that is kept outside of the folder. Until the data key is unwrapped, keys are listed with their public halves and do
// not sign.
//
// A folder also keeps short secrets ([SecretStore]), encrypted as its keys are.
//
// All keys are ECDSA on P-256. A private key is never logged, and never leaves its store. [SignDigest] verifies every
// signature that was made outside of this process.
package keys
