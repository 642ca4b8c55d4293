package node

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ententehq/entente/bundle/webcert"
	"github.com/ententehq/entente/node/acmeorders"
)

// acmeSource makes the certificates of an endpoint that listens already.
func (m *member) acmeSource(cfg webcert.ACMEConfig) (*webcert.ACME, error) {
	c := m.cfg.BundleEndpoint.ACME
	cfg.Directory, cfg.Email, cfg.Hosts = c.Directory, c.Email, c.Hosts
	cfg.Dir, cfg.Orders = m.dir.file("acme"), acmeorders.New(m.store, m.cfg.Member.ID)
	if c.CAFile != "" {
		roots, err := readRoots(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("bundle_endpoint.profile.acme.ca_file: %w", err)
		}
		cfg.Roots = roots
	}
	if c.EABKeyID != "" {
		key, err := c.EABKey.Read()
		if err != nil {
			return nil, fmt.Errorf("bundle_endpoint.profile.acme.eab_hmac_key: %w", err)
		}
		cfg.ExternalAccount = &webcert.ExternalAccount{KeyID: c.EABKeyID, Key: key}
	}
	return webcert.NewACME(cfg)
}

// maxRootsBytes is far above any file of roots.
const maxRootsBytes = 4 << 20

func readRoots(path string) (*x509.CertPool, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(file, maxRootsBytes+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if len(raw) > maxRootsBytes || !roots.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%s holds no certificates in PEM, or more than %d bytes", path, maxRootsBytes)
	}
	return roots, nil
}
