package client

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// maxPEMBytes is far above a bundle of as many authorities as a trust domain can have.
const maxPEMBytes = 1 << 20

// credentialFiles are sources that read files. The bundle file does not name its trust domain. No two hosted domains
// share an authority, so whatever its authorities sign is of that domain.
type credentialFiles struct{ cert, key, bundle string }

// GetX509SVID implements x509svid.Source.
func (f credentialFiles) GetX509SVID() (*x509svid.SVID, error) {
	info, err := os.Stat(f.key)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("other users can read the key %s (mode %04o): run 'chmod 600 %s', "+
			"and issue a new SVID if somebody may have read it", f.key, info.Mode().Perm(), f.key)
	}
	svid, err := x509svid.Load(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("read the SVID in %s and %s: %w", f.cert, f.key, err)
	}
	return svid, checkExpiry(svid, f.cert)
}

// GetX509BundleForTrustDomain implements x509bundle.Source.
func (f credentialFiles) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	file, err := os.Open(f.bundle)
	if err != nil {
		return nil, fmt.Errorf("read the bundle: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxPEMBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the bundle: %w", err)
	}
	authorities, err := parseAuthorities(data)
	if err != nil {
		return nil, fmt.Errorf("%s %w", f.bundle, err)
	}
	return x509bundle.FromX509Authorities(td, authorities), nil
}

// pemSource are sources that parse PEM.
type pemSource func() (PEM, error)

// GetX509SVID implements x509svid.Source.
func (s pemSource) GetX509SVID() (*x509svid.SVID, error) {
	data, err := s()
	if err != nil {
		return nil, err
	}
	svid, err := x509svid.Parse(data.Certificate, data.Key)
	if err != nil {
		return nil, fmt.Errorf("read the SVID: %w", err)
	}
	return svid, checkExpiry(svid, "memory")
}

// GetX509BundleForTrustDomain implements x509bundle.Source.
func (s pemSource) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	data, err := s()
	if err != nil {
		return nil, err
	}
	authorities, err := parseAuthorities(data.Bundle)
	if err != nil {
		return nil, fmt.Errorf("the bundle %w", err)
	}
	return x509bundle.FromX509Authorities(td, authorities), nil
}

// checkExpiry rejects an expired SVID before a handshake does, which would not name the reason.
func checkExpiry(svid *x509svid.SVID, from string) error {
	if end := svid.Certificates[0].NotAfter; time.Now().After(end) {
		return fmt.Errorf("the SVID in %s expired at %s: issue a new one with 'entente svid x509'",
			from, end.UTC().Format(time.RFC3339))
	}
	return nil
}

// parseAuthorities parses PEM certificates. It rejects a block that is anything else instead of skipping it: a bundle
// with an authority missing is not the bundle that was meant.
func parseAuthorities(data []byte) ([]*x509.Certificate, error) {
	const again = "make it again with 'entente bundle show --format pem'"
	if len(data) > maxPEMBytes {
		return nil, fmt.Errorf("has more than %d bytes: %s", maxPEMBytes, again)
	}
	blocks := bytes.Count(data, []byte("-----BEGIN"))
	var all []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return nil, errors.New("has a PEM block that is not a certificate: " + again)
		}
		all = append(all, c)
	}
	switch {
	case blocks == 0:
		return nil, errors.New("has no PEM certificate: make it with 'entente bundle show --format pem' or " +
			"'entente svid x509'")
	case len(all) != blocks:
		return nil, fmt.Errorf("has %d PEM blocks, of which %d can be read: %s", blocks, len(all), again)
	}
	return all, nil
}
