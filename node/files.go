package node

import (
	"context"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/internal/span"
	"github.com/ententehq/entente/node/datadir"
	"github.com/ententehq/entente/node/preflight"
	"github.com/ententehq/entente/node/tracing"
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

// openTraces begins to export traces, if the configuration names a collector. It comes before every part with spans.
func openTraces(m *member) error {
	t := m.cfg.Telemetry.Traces
	if t == nil {
		return nil
	}
	roots, err := preflight.TraceRoots(t)
	if err != nil {
		return err
	}
	cfg := tracing.Config{
		Address: t.Address, Plain: t.Plain, Roots: roots, Ratio: t.Ratio,
		Cluster: m.cfg.Cluster.Name, Member: m.cfg.Member.ID, Version: Version,
		Logger: m.log.Named("traces"), Registerer: m.registry,
	}
	if t.Authorization != nil {
		cfg.Authorization = t.Authorization.Read
	}
	if m.traces, err = tracing.Start(cfg); err != nil {
		return err
	}
	m.life.OnStop("traces", m.traces.Stop)
	m.life.Values(span.With(context.Background(), m.traces.Tracer()))
	return nil
}
