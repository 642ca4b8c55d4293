package config

import (
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/ententehq/entente/node/backup"
)

// Snapshots configures the snapshots that a member saves by itself.
type Snapshots struct {
	Dir   string
	Every time.Duration
	Keep  int
	// Recipients can decrypt the snapshots; without any these are not encrypted.
	Recipients []age.Recipient
}

// The defaults and bounds of snapshots.
const (
	defaultSnapshotEvery = 6 * time.Hour
	minSnapshotEvery     = time.Minute
	maxSnapshotEvery     = 7 * 24 * time.Hour
	defaultSnapshotKeep  = 28
	maxSnapshotKeep      = 1000
)

// snapshots decodes the block snapshots; nil: there is none.
func snapshots(d *decoder, cfg *Config) *Snapshots {
	if _, given := d.found["snapshots"]; !given {
		return nil
	}
	b := d.block("snapshots", false)
	s := &Snapshots{
		Dir: b.text("dir", ""), Every: b.duration("every", defaultSnapshotEvery, minSnapshotEvery, maxSnapshotEvery),
		Keep: b.integer("keep", defaultSnapshotKeep, 1, maxSnapshotKeep),
	}
	if _, given := b.attrs["recipients"]; given {
		var err error
		if s.Recipients, err = backup.ParseRecipients(b.texts("recipients")); err != nil {
			b.refuse("recipients", "%v", err)
		}
	}
	switch below, err := filepath.Rel(cfg.Member.DataDir, s.Dir); {
	case s.Dir == "":
	case !filepath.IsAbs(s.Dir):
		b.refuse("dir", "%q is not an absolute path", s.Dir)
	case err == nil && below != ".." && !strings.HasPrefix(below, "../"):
		b.refuse("dir", "%q is in member.data_dir, and would be lost with it; name a folder elsewhere", s.Dir)
	}
	return s
}
