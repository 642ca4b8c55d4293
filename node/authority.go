package node

import (
	"context"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/vaultca"
	"github.com/ententehq/entente/vaultca/transit"
)

func buildAuthority(m *member) error {
	upstream, err := openUpstream(m)
	if err != nil {
		return err
	}
	keys, err := openKeys(m)
	if err != nil {
		return err
	}
	c := m.cfg.Authority
	m.authority, err = authority.New(authority.Config{
		Store: m.store, Member: m.cfg.Member.ID, Home: m.cfg.Cluster.TrustDomain, DNSName: m.cfg.Cluster.DNSName,
		Defaults:   m.cfg.DomainDefaults(),
		MinRefresh: m.cfg.Federation.MinRefresh, SigningGrace: c.SigningGrace,
		IssueRate: unlessZero(c.IssueRate), IssueBurst: c.IssueBurst, LintSample: int(unlessZero(c.LintSample)),
		Keys: keys, RootTTL: m.cfg.SelfSigned.RootTTL, JWTKeyTTL: c.JWTKeyTTL, Upstream: upstream,
		Contact: m.members, Conn: m.port.Conn, IsForeign: relationship.IsForeign,
		Ends: func(tx *raftstore.Tx, td spiffeid.TrustDomain) ([]*ententev1.Effect, func(), error) {
			effects, done, err := m.federation.EndHosted(tx, td)
			if err != nil {
				return nil, nil, err
			}
			deleted, err := endEntries(tx, td)
			return append(effects, deleted...), done, err
		},
		Depends:        effects{m}.ofDeletion,
		AnchorApproval: m.cfg.AnchorApproval, Acknowledgements: acknowledgements{m},
		Audit: m.audit, Logger: m.log.Named("authority"), Registerer: m.registry,
	})
	return err
}

// unlessZero converts a limit from the configuration, where 0 means none, to the form of the rooms, where 0 means the
// default and a negative number means none.
func unlessZero(n int) float64 {
	if n == 0 {
		return -1
	}
	return float64(n)
}

// openUpstream returns the configured upstream of this member's authorities, or nil for the self-signed one.
func openUpstream(m *member) (upstream.Upstream, error) {
	if m.cfg.Vault == nil {
		return nil, nil
	}
	cfg := *m.cfg.Vault
	cfg.Logger, cfg.Registerer = m.log.Named("vault"), m.registry
	cfg.LongestSVID = func(td spiffeid.TrustDomain) time.Duration {
		row, found, err := table.Domains.Get(m.store.View(), td.Name())
		if err != nil || !found {
			return m.cfg.Authority.X509SVIDTTL
		}
		return row.Value.GetX509SvidTtl().AsDuration()
	}
	upstream, err := vaultca.New(cfg)
	if err != nil {
		return nil, err
	}
	m.vault = upstream
	return upstream, nil
}

// keyFolder holds the signing keys on disk, in the data folder.
const keyFolder = "keys"

// openKeys returns the configured store of the signing keys. It runs after openUpstream: keys in Transit share the
// upstream's Vault login.
func openKeys(m *member) (keys.Store, error) {
	if m.cfg.Authority.Keys != config.KeysDisk {
		warnOfKeysOnDisk(m)
	}
	switch m.cfg.Authority.Keys {
	case config.KeysMemory:
		return keys.NewMemory(), nil
	case config.KeysTransit:
		cfg := *m.cfg.Transit
		cfg.Vault.Logger, cfg.Vault.Registerer = m.log.Named("transit"), m.registry
		keys, err := transit.Open(cfg, m.vault.Caller())
		if err != nil {
			return nil, err
		}
		m.transit = keys
		return keys, nil
	}
	return openDiskKeys(m)
}

// warnOfKeysOnDisk logs a warning if the data folder still holds keys although the configuration keeps them elsewhere.
func warnOfKeysOnDisk(m *member) {
	folder := m.dir.File(keyFolder)
	left, err := filepath.Glob(filepath.Join(folder, "*.pem"))
	if err == nil && len(left) > 0 {
		m.log.Warn("the data folder holds signing keys that are no longer used; their signatures are trusted until "+
			"their "+
			"authorities are gone: delete the folder",
			"folder", folder, "keys", len(left), "now_kept", string(m.cfg.Authority.Keys))
	}
}

// acknowledgements gives the authority what federation knows about its peers. Federation is built after the authority
// and before either of them runs.
type acknowledgements struct{ m *member }

// Acknowledged implements [authority.Acknowledgements].
func (a acknowledgements) Acknowledged(ctx context.Context, td string) ([]plan.PeerAcknowledgement, bool, error) {
	known, complete, err := a.m.federation.Streams().Acknowledged(ctx, td)
	if err != nil {
		return nil, false, err
	}
	peers := make([]plan.PeerAcknowledgement, len(known))
	for i, p := range known {
		peers[i] = plan.PeerAcknowledgement(p)
	}
	return peers, complete, nil
}
