// Package config reads the configuration file of a member.
//
// [Load] decodes an HCL file strictly: an unknown name is an error, with the file, the line and the nearest known name.
// It applies the defaults, checks every value, and reports all mistakes at once, one line for each. A [Config] that
// exists is valid. [Dev] is the configuration of a member that needs no file.
//
// A [Secret] holds where a secret is, not the secret: Read reads it each time, and it is never printed.
//
// [ParseRules] reads files of routing rules, which have the same syntax but belong to commands.
//
// Start with decodeConfig in schema.go, which decodes one block after the other. endpoint.go, vault.go and transit.go
// decode the larger blocks; decode.go reads single settings.
package config
