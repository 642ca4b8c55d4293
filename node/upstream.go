package node

import (
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/vaultca"
)

// keyFolder holds the signing keys on disk, in the data folder.
const keyFolder = "keys"

// buildUpstream makes the configured upstream of this member's authorities; nil stands for the self-signed one.
func (m *member) buildUpstream() (upstream.Upstream, error) {
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

// buildKeys makes where the signing keys are kept; nil: in the folder of that name. It comes after the upstream, whose
// login the keys in Transit share.
func (m *member) buildKeys() (keys.Store, error) {
	if m.cfg.Authority.Keys != config.KeysDisk {
		m.warnOfKeysOnDisk()
	}
	switch m.cfg.Authority.Keys {
	case config.KeysMemory:
		return keys.NewMemory(), nil
	case config.KeysTransit:
		cfg := *m.cfg.Transit
		cfg.Vault.Logger, cfg.Vault.Registerer = m.log.Named("transit"), m.registry
		keys, err := vaultca.OpenTransit(cfg, m.vault)
		if err != nil {
			return nil, err
		}
		m.transit = keys
		return keys, nil
	}
	return nil, nil
}

// warnOfKeysOnDisk says so when keys of before lie in the data folder, though they are to be kept elsewhere now.
func (m *member) warnOfKeysOnDisk() {
	left, err := filepath.Glob(filepath.Join(m.dir.file(keyFolder), "*.pem"))
	if err == nil && len(left) > 0 {
		m.log.Warn("signing keys of before lie in the data folder, and are used no more; what they sign is trusted until their authorities are gone: delete the folder",
			"folder", m.dir.file(keyFolder), "keys", len(left), "now_kept", string(m.cfg.Authority.Keys))
	}
}
