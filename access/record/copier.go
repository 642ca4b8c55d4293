package record

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
)

// Copier copies the record into the audit log of this member.
type Copier struct {
	Store *raftstore.Store
	Log   audit.Recorder
	// Path is the file that keeps how far the record was copied.
	Path   string
	Logger hclog.Logger
}

// position is how far a member has copied the record: the number of the last change, and the revision of the state in
// which it was seen.
type position struct {
	Number   uint64             `json:"number"`
	Revision raftstore.Revision `json:"revision"`
}

// retry is how long the copier waits after its audit log or its position could not be written.
const retry = time.Second

// Run copies the record until ctx ends or the store is closed. After a failure it continues where it was; a crash can
// repeat lines.
func (c *Copier) Run(ctx context.Context) error {
	at := c.load()
	for {
		err := feed.Latest(ctx, c.Store, []raftstore.Prefix{changes.Prefix(""), head.Prefix("")},
			func(view *raftstore.View) (err error) {
				at, err = c.copy(view, at)
				return err
			})
		if ctx.Err() != nil || errors.Is(err, raftstore.ErrClosed) {
			return err
		}
		c.Logger.Warn("administrative changes could not be copied into the audit log; trying again", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry):
		}
	}
}

// copy writes the changes after a position, and returns the new one.
func (c *Copier) copy(view *raftstore.View, at position) (position, error) {
	if view.Revision() < at.Revision {
		return at, nil // the member replays its log, and has copied from a later state
	}
	lines, to, err := plan(view, at)
	if err != nil || len(lines) == 0 {
		return at, err
	}
	for i, line := range lines {
		line.Durable = i == len(lines)-1
		if err := c.Log.Record(line); err != nil {
			return at, err
		}
		if line.Result == audit.ResultMissing {
			c.Logger.Warn("the record of administrative changes has a gap: see the audit log", "object", line.Object,
				"detail", line.Detail)
		}
	}
	return to, c.save(to)
}

// copiedBy is the caller in lines about the record itself.
const copiedBy = "record of administrative changes"

// gone explains changes that are missing below later ones.
const gone = "the record does not have them any more; the audit log of another member may have"

// plan returns the lines for what the record has after a position, and the position after them.
func plan(r raftstore.Reader, at position) (lines []audit.Event, to position, err error) {
	h, _, err := head.Get(r, headKey)
	if err != nil {
		return nil, at, err
	}
	missing := func(object, detail string) {
		lines = append(lines, audit.Event{
			Caller: copiedBy, Action: "copy", Object: object, Result: audit.ResultMissing, Detail: detail,
		})
	}
	rows, err := changes.List(r, "")
	if err != nil {
		return nil, at, err
	}
	last := max(h.Value.GetNext(), 1) - 1
	for _, row := range rows {
		if number, ok := numberOf(row.Key); ok {
			last = max(last, number)
		}
	}
	to = at
	if last < at.Number {
		missing(span(last+1, at.Number), "the record went back: this happens when a cluster that lost its state is "+
			"rebuilt from a snapshot; otherwise a member with other software has changed it")
		to.Number = last
	}
	for _, row := range rows {
		number, ok := numberOf(row.Key)
		if !ok || number <= to.Number {
			continue
		}
		if number > to.Number+1 {
			missing(span(to.Number+1, number-1), gone)
		}
		to.Number = number
		change := row.Value
		detail := fmt.Sprintf("change %d, made on member %s at %s", number, change.GetMember(),
			change.GetTime().AsTime().Format(time.RFC3339))
		if by := change.GetRestoredOn(); by != "" {
			detail += ", restored on member " + by
		}
		lines = append(lines, audit.Event{
			Caller: change.GetCaller(), Action: change.GetAction(), Object: change.GetObject(),
			Result: audit.ResultRecorded, Revision: uint64(row.Revision), Call: change.GetCall(),
			Detail: detail,
		})
	}
	if last > to.Number {
		missing(span(to.Number+1, last), gone)
		to.Number = last
	}
	to.Revision = r.Revision()
	return lines, to, nil
}

// span names a range of changes.
func span(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("change %d", from)
	}
	return fmt.Sprintf("changes %d to %d", from, to)
}

// numberOf is the inverse of key.
func numberOf(k string) (uint64, bool) {
	n, err := strconv.ParseUint(k, 10, 64)
	return n, err == nil && key(n) == k
}

// load reads the position. Without one the whole record is copied.
func (c *Copier) load() (at position) {
	b, err := os.ReadFile(c.Path)
	if err == nil {
		at, err = parsePosition(b)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Logger.Warn("it is not known how far administrative changes were copied into the audit log; the whole "+
			"record is copied again", "path", c.Path, "error", err)
		return position{}
	}
	return at
}

// positionFile is a position on disk. A bit that flips in it must not hide changes from the audit log.
type positionFile struct {
	position
	Sum string `json:"sha256,omitempty"` // earlier versions wrote none
}

func (p position) file() ([]byte, error) { return json.Marshal(positionFile{p, p.sum()}) }

func (p position) sum() string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%d at %d", p.Number, p.Revision)))
}

func parsePosition(b []byte) (position, error) {
	var f positionFile
	switch err := json.Unmarshal(b, &f); {
	case err != nil:
		return position{}, err
	case f.Sum != "" && f.Sum != f.sum():
		return position{}, errors.New("its checksum does not match")
	}
	return f.position, nil
}

// save replaces the position. It is not synced: the lines are, and after a crash some of them are written again.
func (c *Copier) save(at position) error {
	b, err := at.file()
	if err != nil {
		return err
	}
	next := c.Path + ".new"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return fmt.Errorf("keep how far administrative changes were copied: %w", err)
	}
	return os.Rename(next, c.Path)
}
