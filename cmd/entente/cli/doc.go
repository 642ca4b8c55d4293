// Package cli is what the commands share: the flags of every command, the connection to a member, output as a table,
// JSON or YAML, errors, and values as people write them.
//
// A command is a cobra command whose RunE is made by [Env.Call] or [Env.Stream]: it gets a connection to the member
// that the flags name, makes its calls and prints with [Env.Print]. [Run] runs a whole command line and returns the
// exit status.
package cli
