package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/webcert"
	"github.com/ententehq/entente/node/acmeorders"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust/bundleapi"
	"github.com/ententehq/entente/trust/publisher"
)

// buildEndpoint makes what serves bundles: the handler of the SPIFFE bundle endpoint, the publisher that fills it, and
// the bundle API.
func buildEndpoint(m *member) (err error) {
	if m.handler, err = endpoint.NewHandler(m.registry); err != nil {
		return err
	}
	home := m.cfg.Cluster.TrustDomain
	m.publisher = publisher.New(publisher.Config{
		Store: m.store, Index: m.trust, Home: home, Handler: m.handler, Logger: m.log.Named("endpoint"),
	})
	m.bundles, err = bundleapi.New(bundleapi.Config{
		Catalog:     &bundleapi.Indexed{Store: m.store, Index: m.trust, Domain: home, Versions: bundleHistory},
		StatusError: raftstore.StatusError, Logger: m.log.Named("bundles"), Registerer: m.registry,
	})
	return err
}

// openEndpoint listens for the bundle endpoint, in the configured profile.
func openEndpoint(m *member) (*endpoint.Server, error) {
	log := m.log.Named("endpoint")
	cfg := endpoint.ServerConfig{Handler: m.handler, Logger: log, Registerer: m.registry}
	listener, err := listen("bundle readers", "bundle_endpoint.listen", m.cfg.BundleEndpoint.Listen)
	if err != nil {
		return nil, err
	}
	cfg.Listener = listener
	if err := certify(m, &cfg); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return endpoint.NewServer(cfg)
}

// certify sets the source of the endpoint's certificates: the authority, an ACME server, or files.
func certify(m *member, cfg *endpoint.ServerConfig) error {
	switch e := m.cfg.BundleEndpoint; {
	case e.Profile == config.ProfileSPIFFE:
		cfg.SVIDs = func(_ context.Context, td spiffeid.TrustDomain) (*tls.Certificate, error) {
			return m.authority.EndpointSVID(td)
		}
	case e.ACME != nil:
		source, err := acmeSource(m, webcert.ACMEConfig{
			Endpoint: cfg.Listener.Addr(), Logger: cfg.Logger, Registerer: m.registry,
		})
		if err != nil {
			return err
		}
		cfg.Web = source
		m.publisher.SetHostNames(source)
	default:
		files, err := webcert.NewCertificateFiles(webcert.CertificateFilesConfig{
			CertFile: e.CertFile, KeyFile: e.KeyFile, Logger: cfg.Logger, Registerer: m.registry,
		})
		if err != nil {
			return err
		}
		cfg.Web = files
	}
	return nil
}

// acmeSource completes cfg from the configuration, for an endpoint that already listens.
func acmeSource(m *member, cfg webcert.ACMEConfig) (*webcert.ACME, error) {
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

// maxRootsBytes is far above the size of any file of roots.
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
