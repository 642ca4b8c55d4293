package sync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	gosync "sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle/publish"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// syncer writes the bundles of a source into a folder. It belongs to one goroutine, apart from report.
type syncer struct {
	options
	command command
	folder  *publish.Folder
	source  *client.BundleSource
	to      io.Writer
}

func (s *syncer) report(format string, args ...any) {
	fmt.Fprintf(s.to, "entente: "+format+"\n", args...)
}

// write makes the folder hold the present bundles, and reports what changed.
func (s *syncer) write() (changed bool, err error) {
	objects, invalid := publish.Objects(s.source.Bundles(), s.formats)
	change, err := s.folder.Write(objects)
	if len(change.Removed) > 0 {
		s.report("removed %s", listed(change.Removed))
	}
	if len(change.Written) > 0 {
		s.report("wrote %s", listed(change.Written))
	}
	return !change.Empty(), errors.Join(invalid, err)
}

// listed returns names for a line.
func listed(names []string) string {
	const most = 10
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// absent returns the domains of --domain of which there is no bundle.
func (s *syncer) absent() (names []string) {
	have := map[spiffeid.TrustDomain]bool{}
	for _, b := range s.source.Bundles() {
		have[b.TrustDomain()] = true
	}
	for _, td := range s.domains {
		if !have[td] {
			names = append(names, td.Name())
		}
	}
	return names
}

// runOnce writes the files, and runs the command if they changed.
func (s *syncer) runOnce(ctx context.Context) error {
	if _, err := s.write(); err != nil {
		return err
	}
	if s.folder.Unannounced() {
		if err := s.command.run(ctx); err != nil {
			return fmt.Errorf("the files are written, but %w", err)
		}
		if err := s.folder.Announced(); err != nil {
			return err
		}
	}
	if names := s.absent(); len(names) > 0 {
		return cli.NotFoundf("the cluster has no bundle of %s for this caller", listed(names))
	}
	return nil
}

// ran is the end of a command that was started for a number of changes.
type ran struct {
	changes int
	err     error
}

// runUntil writes after each change until ctx ends. ready is called when the files are complete for the first time. The
// command runs beside it, so that one that hangs keeps no ended trust in the files.
func (s *syncer) runUntil(ctx context.Context, ready func() error) {
	if names := s.absent(); len(names) > 0 {
		s.report("the cluster has no bundle of %s for this caller: it is written once there is one", listed(names))
	}
	wanted, ended := make(chan int, 1), make(chan ran)
	var running gosync.WaitGroup
	running.Go(func() {
		for changes := range wanted {
			end := ran{changes, s.command.run(ctx)}
			select {
			case ended <- end:
			case <-ctx.Done():
			}
		}
	})
	defer running.Wait()
	defer close(wanted)

	changes := 0
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case end := <-ended:
			s.announced(end, changes)
			continue
		case <-s.source.Updated():
		case <-retry.C:
		}
		changed, err := s.write()
		if err != nil {
			s.report("%s; tries again within %s", cli.Printable(err.Error()), writeRetry)
			retry.Reset(writeRetry)
		}
		if changed || changes == 0 && s.folder.Unannounced() {
			changes++
			select { // the newest number alone
			case <-wanted:
			default:
			}
			if s.exec != "" {
				wanted <- changes
			}
		}
		if err == nil && ready != nil {
			if err := ready(); err != nil {
				s.report("%s", cli.Printable(err.Error()))
			}
			ready = nil
		}
	}
}

// announced records the end of a command. If files changed since it was started, it runs once more.
func (s *syncer) announced(end ran, changes int) {
	err := end.err
	switch {
	case err != nil:
		err = fmt.Errorf("%w; it runs again after the next change", err)
	case end.changes == changes:
		err = s.folder.Announced()
	}
	if err != nil {
		s.report("%s", cli.Printable(err.Error()))
	}
}
