// Command vaultdev is a Vault server to test with: the real core with the PKI and Transit secrets engines and AppRole,
// certificate, JWT and Kubernetes auth, its storage in memory, behind a TLS listener on loopback whose CA it makes
// itself.
//
// It is a module of its own, so that Vault and its licence stay out of the product's dependencies. Tests start it
// through the package vaultca/vaulttest.
//
// On standard output it prints one line of JSON: where it listens, the root token, the unseal key and the CA
// certificate. It then obeys lines on standard input, answering each with a line of JSON, and ends when standard input
// closes:
//
//	restart   stop the core and start another one over the same storage, unsealed, on the same address
//	stop      close the listener and stop the core
//	start     the other half of restart
//	renew     replace the listener's certificate with another from the same CA; existing connections are closed
//	reissue   replace the listener's certificate with one from a new CA; existing connections are closed
//
// Sealing and unsealing go through Vault's own API.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

// answer is one line on standard output.
type answer struct {
	Address   string `json:"address,omitempty"`
	RootToken string `json:"root_token,omitempty"`
	UnsealKey string `json:"unseal_key,omitempty"`
	CA        string `json:"ca,omitempty"`
	Error     string `json:"error,omitempty"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "vaultdev:", err)
		os.Exit(1)
	}
}

func run() error {
	out := json.NewEncoder(os.Stdout)
	s, err := newServer()
	if err != nil {
		return err
	}
	if err := out.Encode(s.describe()); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		a := answer{}
		if err := s.obey(in.Text()); err != nil {
			a.Error = err.Error()
		} else {
			a = s.describe()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return s.stop()
}
