package node

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/hashicorp/go-hclog"

	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/lifecycle"
)

// Version is the version of the software. The build sets it.
var Version = "dev"

// Options are the settings of a member that are not in its configuration file.
type Options struct {
	// Bootstrap forms a new cluster with this member. It has no effect on a member that already belongs to a cluster.
	Bootstrap bool
	// LogOutput receives the log. If nil, the log goes to standard error.
	LogOutput io.Writer
	// Started, if not nil, is called once the member has started and its admin socket accepts connections.
	Started func()
}

// SocketName is the name of the admin socket in the data folder.
const SocketName = "admin.sock"

// errNoCluster is returned for an empty data folder without an instruction to form or join a cluster.
var errNoCluster = errors.New("the data folder is empty: start with --bootstrap to form a new cluster, or add a join " +
	"block with addresses and a token from 'entente cluster join-token'")

// Run starts a member and returns when ctx ends or when the member fails. It returns nil after an orderly end.
func Run(ctx context.Context, cfg *config.Config, opts Options) error {
	if opts.LogOutput == nil {
		opts.LogOutput = os.Stderr
	}
	log := hclog.New(&hclog.LoggerOptions{
		Name: "entente", Level: hclog.LevelFromString(cfg.Telemetry.LogLevel), Output: opts.LogOutput,
		JSONFormat: cfg.Telemetry.LogFormat == "json", TimeFormat: "2006-01-02T15:04:05.000Z0700",
	})
	m := &member{cfg: cfg, log: log, life: lifecycle.New(log)}
	err := m.start(ctx, opts)
	if err == nil {
		log.Info("started", "version", Version, "cluster", cfg.Cluster.Name, "member", cfg.Member.ID,
			"address", cfg.Member.Advertise, "bundle_endpoint", cfg.BundleEndpoint.Listen,
			"operations", cfg.Telemetry.Listen, "admin_socket", m.dir.file(SocketName))
		if opts.Started != nil {
			opts.Started()
		}
		select {
		case <-ctx.Done():
			log.Info("stopping")
		case err = <-m.life.Failed():
			log.Error("the member stops after a failure", "error", err)
		}
	}
	if m.operations != nil {
		m.operations.SetReady(nil)
	}
	if err != nil && ctx.Err() != nil {
		err = nil // the caller ended ctx before the member had started
	}
	return errors.Join(err, m.life.Stop())
}
