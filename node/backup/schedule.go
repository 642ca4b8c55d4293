package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ententehq/entente/raftstore/snapshot"
)

// Config configures a [Schedule].
type Config struct {
	// Save writes a snapshot of the state.
	Save func(ctx context.Context, w io.Writer) (snapshot.Info, error)
	// Dir is the folder. It is made with mode 0700 if it does not exist.
	Dir string
	// Every is the time between two snapshots, and Keep how many of them stay.
	Every time.Duration
	Keep  int
	// Recipients can decrypt the snapshots. Without any these are not encrypted.
	Recipients []age.Recipient
	// Cluster and Member name the files.
	Cluster, Member string
	Logger          hclog.Logger
	Registerer      prometheus.Registerer
	// Now is the clock. If nil, it is time.Now.
	Now func() time.Time
}

const (
	// retryAfter is the pause after a snapshot that failed.
	retryAfter = 5 * time.Minute
	// saveLimit bounds one snapshot.
	saveLimit = 30 * time.Minute
	// spread is the part of the interval by which members differ, so that they do not all write at once.
	spread = 20
	// stamp is the form of the time in the name of a file.
	stamp = "20060102T150405Z"
)

// Schedule saves snapshots.
type Schedule struct {
	Config
	name    *regexp.Regexp
	saves   *prometheus.CounterVec
	last    prometheus.Gauge
	bytes   prometheus.Gauge
	pending string // prefix of files that are being written
}

// New returns a schedule.
func New(c Config) (*Schedule, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	of := c.Member + "@" + c.Cluster
	s := &Schedule{
		Config: c, pending: "." + of + "-",
		name: regexp.MustCompile(`^` + regexp.QuoteMeta(of) + `-(\d{8}T\d{6}Z)\.snapshot(\.age)?$`),
		saves: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_snapshot_saves_total", Help: "Snapshots of the schedule, by whether they were saved.",
		}, []string{"result"}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "entente_snapshot_last_success_timestamp_seconds",
			Help: "When the newest snapshot of the schedule was saved; 0 if there is none.",
		}),
		bytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "entente_snapshot_last_bytes", Help: "Size of the newest snapshot of the schedule.",
		}),
	}
	for _, r := range []string{"ok", "failed"} {
		s.saves.WithLabelValues(r)
	}
	if c.Registerer != nil {
		for _, m := range []prometheus.Collector{s.saves, s.last, s.bytes} {
			if err := c.Registerer.Register(m); err != nil {
				return nil, fmt.Errorf("register the metrics of snapshots: %w", err)
			}
		}
	}
	return s, nil
}

// Run saves snapshots until ctx ends.
func (s *Schedule) Run(ctx context.Context) error {
	timer := time.NewTimer(s.first())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		wait := s.Every + rand.N(s.Every/spread)
		if err := s.save(ctx); err != nil {
			if ctx.Err() != nil {
				return nil // the member stops
			}
			wait = min(s.Every, retryAfter)
			s.saves.WithLabelValues("failed").Inc()
			s.Logger.Error("the snapshot of the schedule was not saved; trying again", "dir", s.Dir, "in", wait,
				"error", err)
		}
		timer.Reset(wait)
	}
}

// first returns when the first snapshot is due, from the newest one in the folder. One with a time in the future, which
// a clock that was ahead has left, does not count.
func (s *Schedule) first() time.Duration {
	all, err := s.list()
	if err != nil {
		return 0
	}
	past := slices.DeleteFunc(all, func(f saved) bool { return f.at.After(s.Now()) })
	if len(past) == 0 {
		return 0
	}
	newest := past[len(past)-1]
	s.show(newest.at, newest.bytes)
	return max(0, s.Every-s.Now().Sub(newest.at))
}

func (s *Schedule) show(at time.Time, bytes int64) {
	s.last.Set(float64(at.Unix()))
	s.bytes.Set(float64(bytes))
}

// save saves one snapshot, and removes the oldest ones.
func (s *Schedule) save(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, saveLimit)
	defer cancel()
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	at := s.Now().UTC().Truncate(time.Second)
	name := fmt.Sprintf("%s@%s-%s.snapshot", s.Member, s.Cluster, at.Format(stamp))
	if len(s.Recipients) > 0 {
		name += ".age"
	}
	info, size, err := s.write(ctx, filepath.Join(s.Dir, name))
	if err != nil {
		return err
	}
	s.saves.WithLabelValues("ok").Inc()
	s.show(at, size)
	s.Logger.Info("a snapshot was saved", "file", filepath.Join(s.Dir, name), "revision", info.Revision, "bytes", size)
	return s.prune(name)
}

// write writes a snapshot into a file, which appears when it is whole and was read back.
func (s *Schedule) write(ctx context.Context, path string) (info snapshot.Info, size int64, err error) {
	f, err := os.CreateTemp(s.Dir, s.pending+"*")
	if err != nil {
		return info, 0, err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
			return
		}
		if err = os.Rename(f.Name(), path); err == nil {
			err = syncDir(s.Dir)
		}
	}()
	written := sha256.New()
	if info, err = s.copy(ctx, io.MultiWriter(f, written)); err != nil {
		return info, 0, err
	}
	if err = f.Sync(); err != nil {
		return info, 0, err
	}
	if _, err = f.Seek(0, io.SeekStart); err != nil {
		return info, 0, err
	}
	read := sha256.New()
	if size, err = io.Copy(read, f); err != nil {
		return info, 0, fmt.Errorf("read the snapshot back: %w", err)
	}
	if !slices.Equal(read.Sum(nil), written.Sum(nil)) {
		return info, 0, errors.New("the file does not hold what was written: its disk is damaged")
	}
	return info, size, nil
}

// copy writes a snapshot, encrypted for the recipients, and checks it meanwhile as a restore would.
func (s *Schedule) copy(ctx context.Context, to io.Writer) (info snapshot.Info, err error) {
	encrypted, err := Encrypt(to, s.Recipients)
	if err != nil {
		return info, err
	}
	checked, check := io.Pipe()
	result := make(chan error, 1)
	var inspected snapshot.Info
	go func() {
		var err error
		inspected, err = snapshot.Inspect(checked)
		result <- errors.Join(err, checked.CloseWithError(err))
	}()
	info, err = s.Save(ctx, io.MultiWriter(encrypted, check))
	_ = check.CloseWithError(err) // which ends the check
	inspection, closing := <-result, encrypted.Close()
	switch {
	case err != nil:
		return info, err
	case inspection != nil:
		return info, fmt.Errorf("the snapshot that was written is not valid: %w", inspection)
	case inspected.SHA256 != info.SHA256:
		return info, errors.New("the snapshot has another checksum than was written")
	}
	return info, closing
}

// saved is a snapshot in the folder.
type saved struct {
	name  string
	at    time.Time
	bytes int64
}

// list returns the snapshots of this member in the folder, the oldest first.
func (s *Schedule) list() ([]saved, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []saved
	for _, e := range entries {
		m := s.name.FindStringSubmatch(e.Name())
		if m == nil || !e.Type().IsRegular() {
			continue
		}
		at, err := time.Parse(stamp, m[1])
		if err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		all = append(all, saved{e.Name(), at, info.Size()})
	}
	slices.SortFunc(all, func(a, b saved) int { return a.at.Compare(b.at) })
	return all, nil
}

// prune removes snapshots beyond those to keep: those with a time in the future first, and then the oldest, but never
// the one that was just written. It also removes what a member left that was killed while it wrote.
func (s *Schedule) prune(written string) error {
	all, err := s.list()
	if err != nil {
		return err
	}
	now := s.Now()
	slices.SortStableFunc(all, func(a, b saved) int {
		switch future := a.at.After(now); {
		case future == b.at.After(now):
			return 0
		case future:
			return -1
		}
		return 1
	})
	all = slices.DeleteFunc(all, func(f saved) bool { return f.name == written })
	var errs []error
	for _, old := range all[:max(0, len(all)-(s.Keep-1))] {
		errs = append(errs, os.Remove(filepath.Join(s.Dir, old.name)))
	}
	left, err := filepath.Glob(filepath.Join(s.Dir, s.pending+"*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(errs...)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
