package raftstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

var (
	// ErrOtherCluster says that a snapshot belongs to another cluster than the one that it should be restored into.
	ErrOtherCluster = errors.New("the snapshot is of another cluster; restore it into that one, or into a new and empty one")
	// ErrRestoreSuperseded says that somebody began another restore before this one ended. Nothing of this one was kept.
	ErrRestoreSuperseded = errors.New("another restore was begun; this one was given up, and nothing of it was kept")
)

const (
	// maxSnapshotBytes bounds what a restore takes in: far more than a member can hold in memory and serve.
	maxSnapshotBytes = 1 << 30
	// chunkBytes is how many bytes of rows go into one command: half of what would fit, so that heartbeats pass in between.
	chunkBytes = maxCommand / 2
	// swapAttempts is how often the rows that outlive a restore are worked out anew because they changed meanwhile. They
	// change rarely; this many times in a row means that something writes without end.
	swapAttempts = 16
	// abortTimeout is how long a failed restore tries to take its staged rows away. The next restore would do so too.
	abortTimeout = 5 * time.Second
)

// RestoreResult says what a restore has done.
type RestoreResult struct {
	// Revision is the one at which the cluster went over to the snapshot's rows.
	Revision Revision
	// Snapshot describes what was restored.
	Snapshot Info
	// Adopted says that the cluster was empty and took the identity of the snapshot's.
	Adopted bool
}

// SaveSnapshot writes the rows of all tables to w, as they are at a revision that holds every write acknowledged before the
// call. It does not hold up writes. If it fails, what was written so far is no snapshot, and a reader will say so.
func (s *Store) SaveSnapshot(ctx context.Context, w io.Writer) (Info, error) {
	v, err := s.Read(ctx, ReadOptions{Linearizable: true})
	if err != nil {
		return Info{}, fmt.Errorf("save a snapshot: %w", err)
	}
	info, err := writeRows(contextWriter{ctx, w}, v.state, time.Now())
	if err != nil {
		return Info{}, fmt.Errorf("save a snapshot at revision %d: %w", v.Revision(), err)
	}
	return info, nil
}

// contextWriter stops a long run of writes when its context ends.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

// RestoreSnapshot replaces the rows of all tables by those of a snapshot that [Store.SaveSnapshot] wrote, but for what rooms
// carry over (see [Store.SurviveRestore]). The snapshot is checked to its end before anything is written; then its rows are
// staged through the log, and one last entry takes them into use on every member at the same revision. Until then every reader
// sees the state as it was, and an error leaves it so, except [ErrUnknownOutcome].
//
// All rows get the revision of that entry, whatever theirs was, so that revisions never go back; writes that were acknowledged
// before it are gone with the rows that they wrote; and every watch gets [ErrWatchRestart]. A snapshot of another cluster is
// refused with [ErrOtherCluster], unless this one is empty (see [Store.CountAsEmpty]): then it becomes that cluster.
func (s *Store) RestoreSnapshot(ctx context.Context, r io.Reader) (RestoreResult, error) {
	result, err := s.restoreSnapshot(ctx, r)
	if err != nil {
		return RestoreResult{}, fmt.Errorf("restore a snapshot: %w", err)
	}
	s.log.Info("restored a snapshot", "revision", result.Revision, "snapshot_revision", result.Snapshot.Revision,
		"rows", result.Snapshot.Rows, "adopted_cluster_id", result.Adopted)
	return result, nil
}

func (s *Store) restoreSnapshot(ctx context.Context, r io.Reader) (RestoreResult, error) {
	file, info, err := spool(s.config.Dir, contextReader{ctx, r})
	if err != nil {
		return RestoreResult{}, err
	}
	defer file.Close() // read only by now, and without a name: closing it deletes it
	now, err := s.Read(ctx, ReadOptions{Linearizable: true})
	if err != nil {
		return RestoreResult{}, err
	}
	if err := s.adoptable(now, info.ClusterID); err != nil {
		return RestoreResult{}, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return RestoreResult{}, err
	}
	_, restored, err := readState(file)
	if err != nil {
		return RestoreResult{}, err
	}

	run := &restoreRun{store: s, restored: restored, generation: newGeneration()}
	result := RestoreResult{Snapshot: info}
	result.Revision, result.Adopted, err = run.do(ctx)
	if err != nil {
		run.abort(ctx)
		return RestoreResult{}, err
	}
	return result, nil
}

// contextReader stops a long run of reads when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// spool copies a snapshot into a file without a name, which goes away with its descriptor whatever happens, and checks all of
// it on the way.
func spool(dir string, r io.Reader) (_ *os.File, _ Info, err error) {
	file, err := os.CreateTemp(dir, "restore-*")
	if err != nil {
		return nil, Info{}, fmt.Errorf("keep the snapshot while it is checked: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	if err := os.Remove(file.Name()); err != nil {
		return nil, Info{}, fmt.Errorf("keep the snapshot while it is checked: %w", err)
	}
	limited := &io.LimitedReader{R: r, N: maxSnapshotBytes + 1}
	info, err := Inspect(io.TeeReader(limited, file))
	if limited.N <= 0 {
		return nil, Info{}, fmt.Errorf("the snapshot has more than %d bytes: %w", maxSnapshotBytes, ErrTooLarge)
	}
	return file, info, err
}

func newGeneration() string {
	var id [8]byte
	rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// restoreRun is one restore under way.
type restoreRun struct {
	store      *Store
	restored   *state
	generation string
	chunks     uint64
}

func (run *restoreRun) do(ctx context.Context) (Revision, bool, error) {
	var err error
	if run.chunks, err = run.stage(ctx, 0, stagedRows(run.restored)); err != nil {
		return 0, false, fmt.Errorf("stage its rows: %w", err)
	}
	for attempt := uint64(1); attempt <= swapAttempts; attempt++ {
		revision, adopted, err := run.swap(ctx, attempt)
		if !errors.Is(err, errChanged) {
			return revision, adopted, err
		}
	}
	return 0, false, fmt.Errorf("what outlives a restore changed %d times while it was worked out: %w", swapAttempts, ErrBusy)
}

var errChanged = errors.New("what was carried over has changed")

// swap works out what outlives the restore and has the cluster go over to the snapshot. The two are one: the entry that swaps
// fails, with errChanged, if any table that a room looked at has changed since it looked.
func (run *restoreRun) swap(ctx context.Context, attempt uint64) (Revision, bool, error) {
	s := run.store
	before := s.View()
	if err := s.adoptable(before, run.restored.clusterID); err != nil {
		return 0, false, err
	}
	tables, rows, err := s.survivors.carry(before.state, run.restored)
	if err != nil {
		return 0, false, err
	}
	chunks, err := run.stage(ctx, attempt, func(yield func(*statev1.StagedRow) bool) {
		for _, row := range rows {
			if !yield(row) {
				return
			}
		}
	})
	if err != nil {
		return 0, false, fmt.Errorf("stage what outlives it: %w", err)
	}
	adopts := before.ClusterID() != run.restored.clusterID
	outcome, err := s.commit(ctx, &statev1.Command{Kind: &statev1.Command_RestoreSwap{RestoreSwap: &statev1.RestoreSwap{
		Generation: run.generation, Chunks: run.chunks, Attempt: attempt, CarriedChunks: chunks,
		ClusterId: run.restored.clusterID, Base: before.state.revision, Tables: tables, Untouched: adopts,
	}}})
	switch {
	case err != nil:
		return 0, false, fmt.Errorf("take the rows into use: %w", err)
	case outcome.applied:
		return Revision(outcome.revision), adopts, nil
	case s.View().state.staging.GetGeneration() != run.generation:
		return 0, false, ErrRestoreSuperseded
	}
	return 0, false, errChanged
}

// stage sends rows in chunks, at least one, and returns how many those were.
func (run *restoreRun) stage(ctx context.Context, attempt uint64, rows iter.Seq[*statev1.StagedRow]) (uint64, error) {
	var sent uint64
	var held []*statev1.StagedRow
	var size int
	send := func() error {
		outcome, err := run.store.commit(ctx, &statev1.Command{Kind: &statev1.Command_RestoreChunk{RestoreChunk: &statev1.RestoreChunk{
			Generation: run.generation, Attempt: attempt, Sequence: sent, Rows: held,
		}}})
		if err == nil && !outcome.applied {
			err = ErrRestoreSuperseded
		}
		sent++
		held, size = nil, 0
		return err
	}
	for row := range rows {
		n := proto.Size(row) + 8
		if len(held) > 0 && size+n > chunkBytes {
			if err := send(); err != nil {
				return 0, err
			}
		}
		held = append(held, row)
		size += n
	}
	if len(held) > 0 || sent == 0 {
		if err := send(); err != nil {
			return 0, err
		}
	}
	return sent, nil
}

// abort takes the staged rows away, if that can be done now. If not, the next restore does it.
func (run *restoreRun) abort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	_, err := run.store.commit(ctx, &statev1.Command{Kind: &statev1.Command_RestoreAbort{RestoreAbort: &statev1.RestoreAbort{
		Generation: run.generation,
	}}})
	if err != nil {
		run.store.log.Warn("rows of a failed restore stay staged until the next one", "error", err)
	}
}

func stagedRows(s *state) iter.Seq[*statev1.StagedRow] {
	return func(yield func(*statev1.StagedRow) bool) {
		for e := range s.entries(rowsTable) {
			if !yield(&statev1.StagedRow{Table: e.table, Key: e.key, Value: e.value}) {
				return
			}
		}
	}
}
