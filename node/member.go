package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/authority"
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle/bundleapi"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/webcert"
	"github.com/ententehq/entente/federation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/lifecycle"
	"github.com/ententehq/entente/node/operations"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/routing"
	"github.com/ententehq/entente/routing/exchange"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
	"github.com/ententehq/entente/routing/xds"
	"github.com/ententehq/entente/vaultca"
)

// member is a member whose rooms are built and connected. Nothing of it runs yet but the store, which takes up where it was.
type member struct {
	cfg      *config.Config
	log      hclog.Logger
	life     *lifecycle.Lifecycle
	registry *prometheus.Registry

	dir        *dataDir
	audit      *access.Log
	operations *operations.Server
	identity   *membership.Identity
	directory  *membership.Directory
	port       *port.Port
	store      *raftstore.Store
	members    *membership.Manager
	guard      *access.Guard
	trust      *trustIndex
	vault      *vaultca.Upstream // nil where the upstream is the self-signed one
	transit    *vaultca.Transit  // nil where the signing keys are not in Vault
	authority  *authority.Manager
	federation *federation.Manager
	routing    *routing.Manager
	xds        *xds.Cache
	handler    *endpoint.Handler
	publisher  *publisher
	bundles    *bundleapi.Service
}

// build makes the rooms from below. When it returns an error the store is closed, and m.life closes the rest.
func (m *member) build() error {
	m.registry = prometheus.NewRegistry()
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.operations = operations.New(m.registry, m.log.Named("operations"))
	for _, step := range []func() error{
		m.openDataDir, m.openPort, m.openStore, m.buildMembership, m.buildAccess, m.buildAuthority, m.buildFederation, m.buildRouting, m.buildEndpoint,
	} {
		if err := step(); err != nil {
			if m.store != nil {
				err = errors.Join(err, m.store.Close())
			}
			return err
		}
	}
	return nil
}

func (m *member) openDataDir() (err error) {
	if m.dir, err = openDataDir(m.cfg.Member.DataDir); err != nil {
		return err
	}
	m.life.OnStop("data folder", m.dir.close)
	m.audit, err = access.OpenLog(access.LogConfig{
		Path: m.dir.file("audit.log"), Member: m.cfg.Member.ID, Logger: m.log.Named("audit"), Registerer: m.registry,
	})
	if err != nil {
		return err
	}
	m.life.OnStop("audit log", m.audit.Close)
	m.identity, err = membership.LoadIdentity(m.dir.file("identity.pem"))
	return err
}

func (m *member) openPort() error {
	listener, err := listen("members and clients", "member.listen", m.cfg.Member.Listen)
	if err != nil {
		return err
	}
	m.directory = membership.NewDirectory(m.cfg.Member.ID, m.log.Named("membership"))
	m.trust = newTrust()
	m.port, err = port.New(port.Config{
		Listener: listener, Self: m.cfg.Member.ID, Identity: m.identity.Certificate,
		Members: m.directory, Certificates: serverCertificates{m}, Trust: m.trust,
		Logger: m.log.Named("port"), Registerer: m.registry,
	})
	if err != nil {
		return fmt.Errorf("open the port: %w", err)
	}
	m.directory.OnLearned(m.port.RecheckMembers)
	return nil
}

// serverCertificates hands the port the member's SVID. The room that issues it is built after the port, and no handshake
// happens before.
type serverCertificates struct{ m *member }

// ServerCertificate implements [port.Certificates].
func (c serverCertificates) ServerCertificate() (*tls.Certificate, error) {
	return c.m.authority.MemberSVID()
}

func (m *member) openStore() (err error) {
	m.store, err = raftstore.Open(raftstore.Config{
		MemberID: m.cfg.Member.ID, Identity: m.identity.Digest, Address: m.cfg.Member.Advertise,
		Dir: m.dir.file("raft"), Stream: m.port.Raft(m.cfg.Member.Advertise), Dial: m.port.Conn,
		Fatal: func(err error) {
			m.operations.Fail(err)
			m.life.Fail(fmt.Errorf("store: %w", err))
		},
		Logger: m.log.Named("store"), Registerer: m.registry,
		Timing: raftstore.Timing{
			Heartbeat: m.cfg.Raft.HeartbeatTimeout, Election: m.cfg.Raft.ElectionTimeout, Disk: m.cfg.Raft.DiskTimeout,
		},
	})
	if err != nil {
		return err
	}
	m.directory.Attach(m.store.Servers())
	m.trust.store.Store(m.store)
	return nil
}

func (m *member) buildMembership() (err error) {
	m.members, err = membership.New(membership.Config{
		Store: m.store, Directory: m.directory, Conns: m.port, Prober: m.port,
		Self: membership.Self{
			ID: m.cfg.Member.ID, Region: m.cfg.Cluster.Region, Zone: m.cfg.Member.Zone,
			Address: m.cfg.Member.Advertise, Version: Version, Identity: m.identity.Digest,
		},
		ClusterName: m.cfg.Cluster.Name, HomeTrustDomain: m.cfg.Cluster.TrustDomain.Name(),
		Caller: port.MemberFrom, Audit: joinAudit{m.audit},
		OnChange: m.port.RecheckMembers,
		OnRemove: []func(*raftstore.Tx, membership.Removal) error{func(tx *raftstore.Tx, r membership.Removal) error {
			return errors.Join(m.authority.RemoveMember(tx, r.MemberID, r.Compromised), m.federation.RemoveMember(tx, r.MemberID, r.Compromised))
		}},
		Logger: m.log.Named("membership"), Registerer: m.registry,
	})
	return err
}

// joinAudit writes what the membership decides on joiners into the audit log.
type joinAudit struct{ log *access.Log }

// RecordJoin implements [membership.Auditor].
func (a joinAudit) RecordJoin(e membership.JoinEvent) error {
	result := e.Result
	if result == "" {
		result = access.ResultBegun
	}
	return a.log.Record(access.Event{
		Caller: fmt.Sprintf("joiner %x", e.Identity[:8]), Action: "join cluster", Object: e.MemberID,
		Result: result, Revision: uint64(e.Revision), Detail: fmt.Sprintf("address %s, token %s", e.Address, e.TokenID), Durable: true,
	})
}

func (m *member) buildAccess() (err error) {
	m.guard, err = access.NewGuard(access.GuardConfig{
		Store: m.store, Home: m.cfg.Cluster.TrustDomain,
		Hosted: func(r raftstore.Reader, td spiffeid.TrustDomain) (bool, error) { return table.Hosts(r, td.Name()) },
		Log:    m.audit, Logger: m.log.Named("access"), Registerer: m.registry,
	})
	return err
}

func (m *member) buildAuthority() error {
	upstream, err := m.buildUpstream()
	if err != nil {
		return err
	}
	keys, err := m.buildKeys()
	if err != nil {
		return err
	}
	m.authority, err = authority.New(authority.Config{
		Store: m.store, Member: m.cfg.Member.ID, Home: m.cfg.Cluster.TrustDomain,
		Defaults:   m.cfg.DomainDefaults(),
		MinRefresh: m.cfg.Federation.MinRefresh, SigningGrace: m.cfg.Authority.SigningGrace,
		IssueRate: unlessZero(m.cfg.Authority.IssueRate), IssueBurst: m.cfg.Authority.IssueBurst, LintSample: int(unlessZero(m.cfg.Authority.LintSample)),
		Keys: keys, KeyDir: m.dir.file(keyFolder), RootTTL: m.cfg.SelfSigned.RootTTL, Upstream: upstream,
		Contact: m.members, Conn: m.port.Conn, IsForeign: relationship.IsForeign, AnchorApproval: m.cfg.AnchorApproval, Acknowledgements: acknowledgements{m},
		Audit: m.audit, Logger: m.log.Named("authority"), Registerer: m.registry,
	})
	return err
}

// unlessZero says "none" as the rooms do: in a configuration it is 0, which they take for the default.
func unlessZero(n int) float64 {
	if n == 0 {
		return -1
	}
	return float64(n)
}

func (m *member) buildFederation() (err error) {
	m.federation, err = federation.New(federation.Config{
		Store: m.store, Leader: m.members, IsHosted: table.Hosts, HostedBundles: table.HostedBundles,
		HostedStatements: publish.Statements, HostedHistory: table.HostedHistory,
		Peers:       federation.PeerConfig{Home: m.cfg.Cluster.TrustDomain, Dial: m.port.DialPeer, Credentials: port.Credentials(), Cargo: cargo{m}},
		Invitations: m.invitations(),
		Audit:       m.audit, MinRefresh: m.cfg.Federation.MinRefresh, Logger: m.log.Named("federation"), Registerer: m.registry,
	})
	if err != nil {
		return err
	}
	m.members.Register(federation.Section, m.federation.Section())
	m.members.Register(federation.PeerSection, m.federation.Peers())
	return nil
}

func (m *member) buildRouting() (err error) {
	m.routing, err = routing.New(routing.Config{
		Store: m.store, Trust: m.trust, Audit: m.audit, Agreements: agreements{}, ImportTTL: m.cfg.Routing.ImportTTL, Leader: m.members, LastContact: m.members.LastHeard,
		Settings: plan.Settings{
			OverprovisioningFactor: m.cfg.Routing.OverprovisioningFactor,
			PanicThreshold:         &m.cfg.Routing.PanicThreshold,
			Stale:                  plan.StaleMode(m.cfg.Routing.Stale),
		},
		Logger: m.log.Named("routing"), Registerer: m.registry,
	})
	if err != nil {
		return err
	}
	m.members.Register(registry.LeaseSection, m.routing.Registry.Tracker)
	m.members.Register(exchange.LivenessSection, m.routing.Exchange.Liveness)
	m.members.Register(exchange.OutcomeSection, m.routing.Exchange.Outcomes)
	m.xds, err = xds.NewCache(xds.Config{
		Store: m.store, Source: m.routing, Roots: m.trust.roots, Home: m.cfg.Cluster.TrustDomain, Region: m.cfg.Cluster.Region,
		Logger: m.log.Named("xds"), Registerer: m.registry,
	})
	return err
}

func (m *member) buildEndpoint() (err error) {
	if m.handler, err = endpoint.NewHandler(m.registry); err != nil {
		return err
	}
	m.publisher = &publisher{store: m.store, home: m.cfg.Cluster.TrustDomain, handler: m.handler, log: m.log.Named("endpoint")}
	m.bundles, err = bundleapi.New(bundleapi.Config{
		Catalog:     &catalog{store: m.store, home: m.cfg.Cluster.TrustDomain},
		StatusError: raftstore.StatusError, Logger: m.log.Named("bundles"), Registerer: m.registry,
	})
	return err
}

// endpointServer opens the bundle endpoint in the configured profile.
func (m *member) endpointServer() (*endpoint.Server, error) {
	log := m.log.Named("endpoint")
	cfg := endpoint.ServerConfig{Handler: m.handler, Logger: log, Registerer: m.registry}
	listener, err := listen("bundle readers", "bundle_endpoint.listen", m.cfg.BundleEndpoint.Listen)
	if err != nil {
		return nil, err
	}
	cfg.Listener = listener
	if err := m.certify(&cfg); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return endpoint.NewServer(cfg)
}

// certify gives the endpoint its certificates, in the configured profile.
func (m *member) certify(cfg *endpoint.ServerConfig) error {
	switch e := m.cfg.BundleEndpoint; {
	case e.Profile == config.ProfileSPIFFE:
		cfg.SVIDs = func(_ context.Context, td spiffeid.TrustDomain) (*tls.Certificate, error) {
			return m.authority.EndpointSVID(td)
		}
	case e.ACME != nil:
		source, err := m.acmeSource(webcert.ACMEConfig{Endpoint: cfg.Listener.Addr(), Logger: cfg.Logger, Registerer: m.registry})
		if err != nil {
			return err
		}
		cfg.Web = source
		m.publisher.follow(source)
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

// storeRef is set once, when the store is open.
type storeRef = atomic.Pointer[raftstore.Store]
