package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node/config"
)

// followSignals reopens the audit log at SIGHUP, after it was rotated, and reads the configuration again.
func followSignals(m *member, load func() (*config.Config, error)) func(context.Context) error {
	return func(ctx context.Context) error {
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
		present := m.cfg
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hup:
				if err := m.audit.Reopen(); err != nil {
					m.log.Error("cannot reopen the audit log; the member continues with the file it has", "error", err)
				} else {
					m.log.Info("reopened the audit log")
				}
				if load != nil {
					present = follow(m, present, load)
				}
			}
		}
	}
}

// follow reads the configuration again and applies it. It returns the one that the member has from then on.
func follow(m *member, present *config.Config, load func() (*config.Config, error)) *config.Config {
	m.supervisor.Reloading()
	next, err := load()
	var changed []string
	if err == nil {
		changed, err = m.reload(present, next)
	}
	m.supervisor.Reloaded(err)
	if err != nil {
		m.log.Error("the configuration is not reloaded; the member continues with the one it has", "error", err)
		return present
	}
	m.log.Info("reloaded the configuration", "changed", changed)
	return next
}

// reloads has the settings that can change while the member runs. A function checks the new value and returns what
// applies it; nothing is applied until all are checked.
var reloads = map[string]func(m *member, next *config.Config) (apply func(), err error){
	"telemetry.log_level":                           reloadLogLevel,
	"authority.issue_rate":                          reloadRate,
	"authority.issue_burst":                         reloadRate,
	`bundle_endpoint.profile "https_web".cert_file`: reloadCertificate,
	`bundle_endpoint.profile "https_web".key_file`:  reloadCertificate,
}

// reload applies what differs between two configurations, or nothing if a part of it cannot change. The certificate
// files are read in any case, since their content may have changed.
func (m *member) reload(present, next *config.Config) (changed []string, err error) {
	changed = config.Changes(present, next)
	var refused []string
	var applies []func()
	check := func(f func(*member, *config.Config) (func(), error)) {
		apply, failure := f(m, next)
		applies, err = append(applies, apply), errors.Join(err, failure)
	}
	for _, name := range changed {
		if _, ok := reloads[name]; !ok {
			refused = append(refused, name)
		}
	}
	if len(refused) > 0 {
		return nil, fmt.Errorf("%s: restart the member to change what is not one of %s; nothing was changed",
			strings.Join(refused, ", "), strings.Join(reloadable(), ", "))
	}
	for _, name := range changed {
		check(reloads[name])
	}
	if m.web != nil {
		check(reloadCertificate)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; nothing was changed", err)
	}
	for _, apply := range applies {
		apply()
	}
	return changed, nil
}

// reloadable returns the names of the settings that can change while the member runs.
func reloadable() (names []string) {
	for name := range reloads {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func reloadLogLevel(m *member, next *config.Config) (func(), error) {
	return func() { m.log.SetLevel(hclog.LevelFromString(next.Telemetry.LogLevel)) }, nil
}

func reloadRate(m *member, next *config.Config) (func(), error) {
	return func() {
		m.authority.SetIssueRate(unlessZero(next.Authority.IssueRate), next.Authority.IssueBurst)
	}, nil
}

func reloadCertificate(m *member, next *config.Config) (func(), error) {
	return m.web.Prepare(next.BundleEndpoint.CertFile, next.BundleEndpoint.KeyFile)
}

// alive returns why this member does not answer, or nil: its admin socket answers a call that reads the state, and
// Raft's main loop handles a request. A member that waits for others, or whose disk is full, answers so, and is alive.
func (m *member) alive(ctx context.Context) error {
	if err := m.operations.Failed(); err != nil {
		return err
	}
	conn, err := grpc.NewClient("unix:"+m.dir.File(SocketName),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = ententev1.NewClusterServiceClient(conn).ListMembers(ctx, &ententev1.ListMembersRequest{
		Read: &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_STALE},
	}, grpc.WaitForReady(true))
	if code := status.Code(err); code == codes.DeadlineExceeded || code == codes.Canceled {
		return fmt.Errorf("the admin socket does not answer: %w", err)
	}
	return m.store.Responds(ctx)
}
