package authority

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/anchor"
	"github.com/ententehq/entente/authority/domain"
	"github.com/ententehq/entente/authority/internal/clock"
	"github.com/ententehq/entente/authority/internal/journal"
	"github.com/ententehq/entente/authority/internal/loop"
	"github.com/ententehq/entente/authority/issue"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/membership"
)

// Manager wires the parts of this room together. Its services can be registered before [Manager.Run].
type Manager struct {
	config Config
	keys   keys.Store
	// changed fires when the tables changed and the issuer has followed.
	changed loop.Signal

	metrics    *metrics
	issuer     *issue.Issuer
	own        *issue.OwnSVIDs
	linter     *issue.Linter
	statements *publish.Signer
	anchors    *anchor.Reconciler
	executor   *executor
	reconciler *reconciler
	preparer   *preparer
	alarms     *alarmLogger
	revoker    *upstreamRevoker
	operator   *operator
	domains    *domain.Service
}

// New opens the key folder, unless the configuration has a key store, and wires a manager. [Manager.Run] starts it.
func New(config Config) (*Manager, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Manager{config: config, keys: config.Keys}
	if m.keys == nil {
		if m.keys, err = keys.OpenFolder(config.KeyDir); err != nil {
			return nil, err
		}
	}
	up := config.Upstream
	if up == nil {
		up = upstream.NewSelfSigned(m.keys, config.RootTTL)
	}
	m.metrics = newMetrics(m)
	if m.linter, err = issue.NewLinter(config.LintSample, config.Logger, config.Registerer); err != nil {
		return nil, fmt.Errorf("set up zlint: %w", err)
	}
	if m.issuer, err = issue.New(issue.Config{
		Store: config.Store, Member: config.Member, Home: config.Home, Keys: m.keys, SigningGrace: config.SigningGrace,
		DNSName: config.DNSName,
		Contact: config.Contact, Conn: config.Conn, Audit: config.Audit, Rate: config.IssueRate,
		Burst:  config.IssueBurst,
		Linter: m.linter, Changed: &m.changed, Now: config.Now, Log: config.Logger, Registerer: config.Registerer,
	}); err != nil {
		return nil, err
	}
	m.own = issue.NewOwnSVIDs(m.issuer)
	publisher := &publish.Publisher{Member: config.Member, Keys: m.keys, Alive: config.Alive}
	if m.statements, err = publish.NewSigner(
		publisher, config.Store, config.Audit, m.issuer.CanSign, config.Now, config.Logger, config.Registerer,
	); err != nil {
		return nil, fmt.Errorf("register the metrics of statements: %w", err)
	}
	m.wire(publisher, up)
	if err := m.metrics.register(config.Registerer); err != nil {
		return nil, err
	}
	restored := restorer{publisher, config.Contact.ClockSane, config.Now}
	config.Store.Snapshots().Survive("authority", restored.surviveRestore)
	config.Store.Snapshots().CountAsEmpty(m.founded)
	return m, nil
}

// wire makes the parts that change authorities.
func (m *Manager) wire(publisher *publish.Publisher, up upstream.Upstream) {
	config := &m.config
	memberClock := clock.Clock{Now: config.Now, Sane: config.Contact.ClockSane}
	changes := &journal.Journal{Store: config.Store, Audit: config.Audit, Log: config.Logger, Forced: m.metrics.forced}
	m.anchors = &anchor.Reconciler{
		Store: config.Store, Member: config.Member, Approval: config.AnchorApproval, Clock: memberClock,
		Publisher: publisher, Journal: changes,
	}
	m.anchors.Source, _ = up.(upstream.AnchorSource)
	m.executor = &executor{
		member: config.Member, grace: config.SigningGrace, keys: m.keys, members: config.Members, clock: memberClock,
		anchors: m.anchors, publisher: publisher, waitsForPeers: config.Acknowledgements != nil,
	}
	peers := &peerReader{config.Acknowledgements, config.Logger}
	m.reconciler = &reconciler{config: config, executor: m.executor, journal: changes, peers: peers}
	m.preparer = newPreparer(m, changes, up)
	m.alarms = &alarmLogger{
		member: config.Member, issuer: m.issuer, failures: &m.preparer.failures, now: config.Now, log: config.Logger,
	}
	m.revoker = &upstreamRevoker{store: config.Store, clock: memberClock, log: config.Logger}
	m.revoker.upstream, _ = up.(upstream.Revoker)
	m.operator = &operator{
		config: config, executor: m.executor, journal: changes, issuer: m.issuer, peers: peers, anchors: m.anchors,
		publisher: publisher, revoker: m.revoker,
	}
	settings := domain.Config{
		Store: config.Store, Home: config.Home, Defaults: config.Defaults, MinRefresh: config.MinRefresh,
		IsForeign: config.IsForeign, Ends: config.Ends, Depends: config.Depends, Publisher: publisher, Now: config.Now,
	}
	if config.Upstream == nil {
		settings.RootTTL = config.RootTTL
	}
	m.domains = domain.NewService(settings)
}

// Run maintains the authorities until ctx ends, and returns its error.
func (m *Manager) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	run := func(task string, reconcile reconcileFunc) {
		group.Go(func() error { return m.runner().Run(ctx, task, reconcile) })
	}
	lead := func(task string, reconcile reconcileFunc) {
		group.Go(func() error {
			return m.config.Store.WhileLeading(ctx, func(ctx context.Context) {
				_ = m.runner().Run(ctx, task, reconcile) // it ends with ctx, which is no failure
			})
		})
	}
	group.Go(func() error { return feed.Latest(ctx, m.config.Store, followed, m.follow) })
	run("reconcile this member's authorities", m.reconciler.reconcileOwn)
	run("prepare this member's next authorities", m.preparer.prepareAll)
	run("prepare this member's next JWT authorities", m.preparer.prepareJWT)
	run("check this member's authorities for alarms", m.alarms.reconcile)
	run("reconcile the anchors of the upstream", m.anchors.Reconcile)
	run("sign statements on bundles", m.statements.Reconcile)
	run("renew this member's own SVIDs", m.own.Reconcile)
	lead("end the authorities of lost members", m.reconciler.reconcileLost)
	lead("revoke certificates in the upstream", m.revoker.reconcile)
	if store, ok := m.keys.(keys.Changing); ok {
		group.Go(func() error { return m.watchKeys(ctx, store.Changed()) })
	}
	group.Go(func() error { return m.anchors.Follow(ctx, m.config.Home, &m.changed) })
	group.Go(func() error { return m.linter.Run(ctx) })
	return group.Wait()
}

// usualStart is how long a member can be without contact to a leader at a usual start.
const usualStart = time.Minute

func (m *Manager) runner() *loop.Runner {
	began := m.config.Now()
	return &loop.Runner{
		Changed: &m.changed, Now: m.config.Now, Log: m.config.Logger,
		Failures: m.metrics.failures.WithLabelValues("reconcile"),
		Starting: func() bool {
			return m.config.Contact.LastContact().IsZero() && m.config.Now().Sub(began) < usualStart
		},
	}
}

// followed are the tables whose changes the loops react to.
var followed = []raftstore.Prefix{
	table.Domains.Prefix(
		""), table.HostedBundles.Prefix(""), table.HostedHistory.Prefix(""), table.Authorities.Prefix(""),
	table.UpstreamAnchors.Prefix(""), table.Rotations.Prefix(""), table.RevokedAnchors.Prefix(""),
	membership.Members.Prefix(""),
}

// follow updates the issuer and wakes the loops.
func (m *Manager) follow(view *raftstore.View) error {
	if err := m.issuer.Update(view); err != nil {
		// A row that cannot be read must not stop the rest of the member.
		m.config.Logger.Error("cannot read the authorities; this member signs from its previous state", "error", err)
		m.metrics.failures.WithLabelValues("read").Inc()
	}
	m.changed.Fire()
	return nil
}

// watchKeys wakes the loops when keys became usable or were lost, until ctx ends.
func (m *Manager) watchKeys(ctx context.Context, changed <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			m.changed.Fire()
		}
	}
}

// DomainService returns the service for hosted trust domains. Access is checked before it is called.
func (m *Manager) DomainService() ententev1.DomainServiceServer { return m.domains }

// AuthorityService returns the service for authorities and anchors. Access is checked before it is called.
func (m *Manager) AuthorityService() ententev1.AuthorityServiceServer {
	return &authorityService{operator: m.operator}
}

// SVIDService returns the service that issues SVIDs; see [issue.Issuer.SVIDService].
func (m *Manager) SVIDService() ententev1.SVIDServiceServer { return m.issuer.SVIDService() }

// SetIssueRate changes IssueRate and IssueBurst of [Config] for every caller.
func (m *Manager) SetIssueRate(perSecond float64, burst int) { m.issuer.SetRate(perSecond, burst) }

// SigningService returns the service that signs for other members; see [issue.Issuer.SigningService].
func (m *Manager) SigningService() ententev1.SigningServiceServer { return m.issuer.SigningService() }

// IssueAgentX509 signs the X509-SVID of an agent; see [issue.Issuer.IssueAgentX509].
func (m *Manager) IssueAgentX509(
	ctx context.Context, id spiffeid.ID, csr []byte, caller string,
) (*ententev1.IssueX509SVIDResponse, error) {
	return m.issuer.IssueAgentX509(ctx, id, csr, caller)
}

// MemberSVID returns the SVID of this member; see [issue.OwnSVIDs.Member].
func (m *Manager) MemberSVID() (*tls.Certificate, error) { return m.own.Member() }

// RestoreSVIDs takes over the SVIDs that this member had before its start; see [issue.OwnSVIDs.Restore].
func (m *Manager) RestoreSVIDs() error { return m.own.Restore() }

// SVIDsRenewed returns an error while the member has the SVIDs of before its start; see [issue.OwnSVIDs.Renewed].
func (m *Manager) SVIDsRenewed() error { return m.own.Renewed() }

// EndpointSVID returns the SVID of a domain's bundle endpoint; see [issue.OwnSVIDs.Endpoint].
func (m *Manager) EndpointSVID(td spiffeid.TrustDomain) (*tls.Certificate, error) {
	return m.own.Endpoint(td)
}

// RemoveMember ends the authorities of a member inside the transaction that removes it, so that a compromised member
// and the trust in its keys end at the same revision. If that leaves a domain without an active authority, the other
// members prepare one at once.
func (m *Manager) RemoveMember(tx *raftstore.Tx, member string, compromised bool) error {
	return m.executor.removeMember(tx, member, compromised)
}
