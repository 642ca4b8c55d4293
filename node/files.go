package node

import (
	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/node/datadir"
)

// openFiles opens what the member keeps in its data folder beside the store: the audit log and the identity key.
func openFiles(m *member) (err error) {
	if m.dir, err = datadir.Open(m.cfg.Member.DataDir); err != nil {
		return err
	}
	m.life.OnStop("data folder", m.dir.Close)
	m.audit, err = audit.Open(audit.Config{
		Path: m.dir.File("audit.log"), Member: m.cfg.Member.ID, Logger: m.log.Named("audit"), Registerer: m.registry,
	})
	if err != nil {
		return err
	}
	m.life.OnStop("audit log", m.audit.Close)
	m.life.Start("resumption of the audit log", m.audit.Run)
	m.identity, err = m.dir.LoadIdentity()
	return err
}
