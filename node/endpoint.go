package node

import (
	"context"
	"crypto/tls"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/webcert"
	"github.com/ententehq/entente/node/acmeorders"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/preflight"
	"github.com/ententehq/entente/trust/bundleapi"
	"github.com/ententehq/entente/trust/publisher"
)

// buildEndpoint makes what serves bundles: the handler of the SPIFFE bundle endpoint, the publisher that fills it, and
// the bundle API.
func buildEndpoint(m *member) (err error) {
	if m.handler, err = endpoint.NewHandler(m.registry); err != nil {
		return err
	}
	m.handler.SetState(m.state)
	home := m.cfg.Cluster.TrustDomain
	m.handler.SetHome(home)
	m.publisher = publisher.New(publisher.Config{
		Store: m.store, Index: m.trust, Home: home, Handler: m.handler, Logger: m.log.Named("endpoint"),
	})
	m.bundles, err = bundleapi.New(bundleapi.Config{
		Catalog: &bundleapi.Indexed{Store: m.store, Index: m.trust, Domain: home, Versions: bundleHistory},
		Logger:  m.log.Named("bundles"), Registerer: m.registry,
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
		cfg.Web, m.web = files, files
	}
	return nil
}

// acmeSource completes cfg from the configuration, for an endpoint that already listens.
func acmeSource(m *member, cfg webcert.ACMEConfig) (*webcert.ACME, error) {
	c := m.cfg.BundleEndpoint.ACME
	cfg.Directory, cfg.Email, cfg.Hosts = c.Directory, c.Email, c.Hosts
	cfg.Dir, cfg.Orders = m.dir.File("acme"), acmeorders.New(m.store, m.cfg.Member.ID)
	var err error
	if cfg.Roots, err = preflight.Roots(c); err != nil {
		return nil, err
	}
	if cfg.ExternalAccount, err = preflight.ExternalAccount(c); err != nil {
		return nil, err
	}
	return webcert.NewACME(cfg)
}
