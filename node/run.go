package node

import (
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/ententehq/entente/internal/logthrottle"
	"github.com/ententehq/entente/node/config"
	report "github.com/ententehq/entente/node/debug"
	"github.com/ententehq/entente/node/lifecycle"
	"github.com/ententehq/entente/node/preflight"
	"github.com/ententehq/entente/raftstore"
)

// Version is the version of the software. A release sets it when it is linked; 'go install' of a version leaves it to
// what Go records of the module.
var Version = "dev"

// released matches the versions that Go records for a tagged module.
var released = regexp.MustCompile(`^v(\d+\.\d+\.\d+)$`)

func init() {
	if info, ok := debug.ReadBuildInfo(); ok && Version == "dev" {
		if tag := released.FindStringSubmatch(info.Main.Version); tag != nil {
			Version = tag[1]
		}
	}
}

// Options are the settings of a member that are not in its configuration file.
type Options struct {
	// Bootstrap forms a new cluster with this member. It has no effect on a member that already belongs to a cluster.
	Bootstrap bool
	// LogOutput receives the log. If nil, the log goes to standard error.
	LogOutput io.Writer
	// Reload, if not nil, reads the configuration again after SIGHUP.
	Reload func() (*config.Config, error)
	// Started, if not nil, is called once the member has started and its admin socket accepts connections.
	Started func()
}

// SocketName is the name of the admin socket in the data folder.
const SocketName = "admin.sock"

// errNoCluster is returned for an empty data folder without an instruction to form or join a cluster.
var errNoCluster = errors.New("the data folder is empty: start with --bootstrap to form a new cluster, or add a join " +
	"block with addresses and a token from 'entente cluster join-token ID'")

// Run starts a member and returns when ctx ends or when the member fails. It returns nil after an orderly end.
func Run(ctx context.Context, cfg *config.Config, opts Options) error {
	if opts.LogOutput == nil {
		opts.LogOutput = os.Stderr
	}
	if err := preflight.Check(cfg); err != nil {
		return err
	}
	tail := report.NewTail(opts.LogOutput)
	log, throttle := newLog(cfg.Telemetry, tail)
	m := &member{cfg: cfg, log: log, tail: tail, life: lifecycle.New(log)}
	err := m.start(ctx, opts)
	if err == nil {
		log.Info("started", "version", Version, "cluster", cfg.Cluster.Name, "member", cfg.Member.ID,
			"address", cfg.Member.Advertise, "bundle_endpoint", cfg.BundleEndpoint.Listen,
			"operations", cfg.Telemetry.Listen, "admin_socket", m.dir.File(SocketName))
		if opts.Started != nil {
			opts.Started()
		}
		select {
		case <-ctx.Done():
			log.Info("stopping")
			m.supervisor.Stopping()
		case err = <-m.life.Failed():
			if !errors.Is(err, ErrRemoved) {
				return m.abort(err, throttle)
			}
		}
	}
	switch {
	case errors.Is(err, ErrRemoved):
		m.showRemoval(err)
	case m.operations != nil:
		m.operations.SetReady(nil)
		m.operations.SetReadyToWrite(nil)
	}
	if err != nil && ctx.Err() != nil {
		err = nil // the caller ended ctx before the member had started
	}
	err = errors.Join(err, m.life.Stop())
	throttle.Close()
	return err
}

// newLog returns the log of the process, and what limits its repeated lines.
func newLog(cfg config.Telemetry, output io.Writer) (hclog.Logger, *logthrottle.Throttle) {
	return logthrottle.New(hclog.New(&hclog.LoggerOptions{
		Name: "entente", Level: hclog.LevelFromString(cfg.LogLevel), Output: output,
		JSONFormat: cfg.LogFormat == "json", TimeFormat: "2006-01-02T15:04:05.000Z0700",
	}))
}

// abortLimit is how long the parts have to end after a failure.
const abortLimit = 5 * time.Second

// abort stops the member after a failure. The disk may hang, the log included, so that the listeners and connections
// close without waiting for either.
func (m *member) abort(failure error, throttle *logthrottle.Throttle) error {
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		m.log.Error("the member stops after a failure", "error", failure)
		throttle.Close()
	}()
	m.operations.SetReady(nil)
	m.operations.SetReadyToWrite(nil)
	err := errors.Join(failure, m.life.Abort(abortLimit))
	select {
	case <-logged:
	case <-time.After(abortLimit):
	}
	return err
}

// Errors of [Run] after which the member must not be started again with its data folder.
var (
	// ErrRemoved means that the member was removed from the cluster.
	ErrRemoved = raftstore.ErrRemoved
	// ErrAbandoned means that the cluster was recovered without the member.
	ErrAbandoned = raftstore.ErrAbandoned
)

// ErrUnfinished means that [Run] returned while a part of the member hangs. The process must exit at once.
var ErrUnfinished = lifecycle.ErrUnfinished
