// Command istiodev reads a SPIFFE bundle endpoint as Istio does, with Istio's own code, for the tests of e2e/docs:
//
//	istio-reader DOMAIN URL ROOTS [SVID]
//
// It fetches the bundle of DOMAIN from URL, whose web certificate must lead to one of the PEM certificates in ROOTS, and
// prints how many root certificates Istio takes from it. With an SVID, a PEM file, it prints whether Istio's verifier of
// peers accepts that chain.
//
// Istio brings a set of dependencies that the project does not want, so this is a module of its own.
package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/spiffe"
)

// retryTime is how long Istio retries a fetch in a test that waits by itself.
const retryTime = time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 || len(args) > 4 {
		return errors.New("usage: istio-reader DOMAIN URL ROOTS [SVID]")
	}
	quiet := log.DefaultOptions()
	quiet.SetDefaultOutputLevel("spiffe", log.NoneLevel)
	if err := log.Configure(quiet); err != nil {
		return err
	}
	domain, url := args[0], args[1]
	pool, err := roots(args[2])
	if err != nil {
		return err
	}
	found, err := spiffe.RetrieveSpiffeBundleRootCerts(map[string]string{domain: url}, pool, retryTime)
	if err != nil {
		return err
	}
	fmt.Printf("%s: root certificates: %d\n", domain, len(found[domain]))
	if len(args) < 4 {
		return nil
	}
	chain, err := certificates(args[3])
	if err != nil {
		return err
	}
	verifier := spiffe.NewPeerCertVerifier()
	verifier.AddMappings(found)
	if err := verifier.VerifyPeerCert(chain, nil); err != nil {
		return fmt.Errorf("%s: %w", args[3], err)
	}
	fmt.Printf("%s: accepted\n", args[3])
	return nil
}

func roots(file string) (*x509.CertPool, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%s has no certificates", file)
	}
	return pool, nil
}

// certificates returns the DER form of the certificates in a PEM file.
func certificates(file string) (chain [][]byte, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			return chain, nil
		}
		chain = append(chain, block.Bytes)
	}
}
