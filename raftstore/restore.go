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
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/machine"
	"github.com/ententehq/entente/raftstore/snapshot"
)

var (
	// ErrOtherCluster means that a snapshot belongs to another cluster than the one that it should be restored into.
	ErrOtherCluster = errors.New("the snapshot is of another cluster; " +
		"restore it into that one, or into a new and empty one")
	// ErrRestoreSuperseded means that another restore began before this one ended. Nothing of this one was kept.
	ErrRestoreSuperseded = errors.New("another restore has begun; this one was given up, and nothing of it was kept")
)

const (
	// maxSnapshotBytes bounds a snapshot that is restored: far more than a member can hold in memory and serve.
	maxSnapshotBytes = 1 << 30
	// chunkBytes is how many bytes of rows go into one command: half of what would fit, so that heartbeats pass in
	// between.
	chunkBytes = machine.MaxCommand / 2
	// swapAttempts is how often the rows that survive a restore are computed again because they have changed meanwhile.
	// They change rarely; this many times in a row means that something writes without end.
	swapAttempts = 16
	// abortTimeout is how long a failed restore tries to remove its staged rows. The next restore removes them too.
	abortTimeout = 5 * time.Second
)

// RestoreResult describes a restore.
type RestoreResult struct {
	// Revision is the one at which the snapshot's rows came into use.
	Revision Revision
	// Snapshot describes what was restored.
	Snapshot snapshot.Info
	// Adopted means that the cluster was empty and took the identity of the snapshot's.
	Adopted bool
}

// Snapshots saves and restores all rows of a store, for operators. Raft's own snapshots are another matter.
type Snapshots struct{ store *Store }

// Snapshots returns what saves and restores the store's rows.
func (s *Store) Snapshots() Snapshots { return Snapshots{s} }

// Save writes the rows of all tables to w, as they are at a revision that holds every write acknowledged before
// the call. It does not delay writes. If it fails, what was written so far is not a snapshot, and every reader rejects
// it.
func (s Snapshots) Save(ctx context.Context, w io.Writer) (snapshot.Info, error) {
	v, err := s.store.Read(ctx, ReadOptions{Linearizable: true})
	if err != nil {
		return snapshot.Info{}, fmt.Errorf("save a snapshot: %w", err)
	}
	info, err := v.state.WriteRows(contextWriter{ctx, w}, time.Now())
	if err != nil {
		return snapshot.Info{}, fmt.Errorf("save a snapshot at revision %d: %w", v.Revision(), err)
	}
	return info, nil
}

// contextWriter ends a long run of writes when its context ends.
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

// contextReader ends a long run of reads when its context ends.
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

// Restore replaces the rows of all tables by those of a snapshot that [Snapshots.Save] wrote, except what
// rooms keep (see [Snapshots.Survive]). The snapshot is verified to its end before anything is written. Then its
// rows are staged through the log, and one last entry puts them into use on every member at the same revision. Until
// then every reader sees the state as it was, and an error leaves it so, except [ErrUnknownOutcome].
//
// Rows that name who wrote them name this member from then on (see [Table.NamesWriter]). All rows get the revision of
// that entry, whatever theirs was, so that revisions never go back. Writes that were
// acknowledged before it are lost with the rows that they wrote, and every watch gets [ErrWatchRestart]. A snapshot of
// another cluster is refused with [ErrOtherCluster], unless this one is empty (see [Snapshots.CountAsEmpty]): then it
// becomes that cluster.
func (s Snapshots) Restore(ctx context.Context, r io.Reader) (RestoreResult, error) {
	result, err := s.store.restoreSnapshot(ctx, r)
	if err != nil {
		return RestoreResult{}, fmt.Errorf("restore a snapshot: %w", err)
	}
	s.store.log.Info("restored a snapshot", "revision", result.Revision, "snapshot_revision", result.Snapshot.Revision,
		"rows", result.Snapshot.Rows, "adopted_cluster_id", result.Adopted)
	return result, nil
}

func (s *Store) restoreSnapshot(ctx context.Context, r io.Reader) (RestoreResult, error) {
	file, info, err := spool(s.config.Dir, contextReader{ctx, r})
	if err != nil {
		return RestoreResult{}, err
	}
	defer file.Close() // only read from here on, and without a name: closing it deletes it
	now, err := s.Read(ctx, ReadOptions{Linearizable: true})
	if err != nil {
		return RestoreResult{}, err
	}
	if err := s.survivors.adoptable(now, info.ClusterID); err != nil {
		return RestoreResult{}, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return RestoreResult{}, err
	}
	restored, err := machine.Read(file)
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

// spool copies a snapshot into a file without a name, which disappears with its descriptor in every case, and verifies
// all of it on the way.
func spool(dir string, r io.Reader) (_ *os.File, _ snapshot.Info, err error) {
	file, err := os.CreateTemp(dir, "restore-*")
	if err != nil {
		return nil, snapshot.Info{}, fmt.Errorf("keep the snapshot while it is verified: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	if err := os.Remove(file.Name()); err != nil {
		return nil, snapshot.Info{}, fmt.Errorf("keep the snapshot while it is verified: %w", err)
	}
	limited := &io.LimitedReader{R: r, N: maxSnapshotBytes + 1}
	info, err := snapshot.Inspect(io.TeeReader(limited, file))
	if limited.N <= 0 {
		return nil, snapshot.Info{}, fmt.Errorf(
			"the snapshot has more than %d bytes: %w",
			maxSnapshotBytes,
			ErrTooLarge,
		)
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
	restored   *machine.State
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
	return 0, false, fmt.Errorf("the rows that survive a restore changed %d times while they were computed: %w",
		swapAttempts, ErrBusy)
}

var errChanged = errors.New("the rows that survive a restore have changed")

// swap computes the rows that survive the restore and replaces the state. The two are one: the entry that swaps fails,
// with errChanged, if a table that a room has read has changed since.
func (run *restoreRun) swap(ctx context.Context, attempt uint64) (Revision, bool, error) {
	s := run.store
	before := s.View()
	if err := s.survivors.adoptable(before, run.restored.ClusterID); err != nil {
		return 0, false, err
	}
	tables, rows, err := s.survivors.carry(before.state, run.restored)
	if err != nil {
		return 0, false, err
	}
	chunks, err := run.stage(ctx, attempt, slices.Values(rows))
	if err != nil {
		return 0, false, fmt.Errorf("stage the rows that survive it: %w", err)
	}
	adopts := before.ClusterID() != run.restored.ClusterID
	outcome, err := s.sender.commit(ctx, &statev1.Command{Kind: &statev1.Command_RestoreSwap{
		RestoreSwap: &statev1.RestoreSwap{
			Generation: run.generation, Chunks: run.chunks, Attempt: attempt, CarriedChunks: chunks,
			ClusterId: run.restored.ClusterID, Base: before.state.Revision, Tables: tables, Untouched: adopts,
		},
	}})
	switch {
	case err != nil:
		return 0, false, fmt.Errorf("put the rows into use: %w", err)
	case outcome.Applied:
		return Revision(outcome.Revision), adopts, nil
	case s.machine.State().Staging.GetGeneration() != run.generation:
		return 0, false, ErrRestoreSuperseded
	}
	return 0, false, errChanged
}

// stage sends rows in chunks, at least one, and returns how many there were.
func (run *restoreRun) stage(ctx context.Context, attempt uint64, rows iter.Seq[*statev1.StagedRow]) (uint64, error) {
	var sent uint64
	var held []*statev1.StagedRow
	var size int
	send := func() error {
		outcome, err := run.store.sender.commit(ctx, &statev1.Command{Kind: &statev1.Command_RestoreChunk{
			RestoreChunk: &statev1.RestoreChunk{
				Generation: run.generation, Attempt: attempt, Sequence: sent, Rows: held,
			},
		}})
		if err == nil && !outcome.Applied {
			err = ErrRestoreSuperseded
		}
		sent++
		held, size = nil, 0
		return err
	}
	for staged := range rows {
		staged, err := restoredOn(staged, run.store.config.MemberID)
		if err != nil {
			return 0, err
		}
		n := proto.Size(staged) + 8
		if len(held) > 0 && size+n > chunkBytes {
			if err := send(); err != nil {
				return 0, err
			}
		}
		held = append(held, staged)
		size += n
	}
	if len(held) > 0 || sent == 0 {
		if err := send(); err != nil {
			return 0, err
		}
	}
	return sent, nil
}

// restoredOn names the member that restores a row, if rows of its table name who wrote them.
func restoredOn(r *statev1.StagedRow, member string) (*statev1.StagedRow, error) {
	w, named := writersOf(r.GetTable())
	if !named || r.Value == nil {
		return r, nil
	}
	value, err := w.restore(r.GetValue(), member)
	if err != nil {
		return nil, err
	}
	return &statev1.StagedRow{Table: r.GetTable(), Key: r.GetKey(), Value: value, Carried: r.GetCarried()}, nil
}

// abort removes the staged rows, if that is possible now. If not, the next restore does.
func (run *restoreRun) abort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	_, err := run.store.sender.commit(ctx, &statev1.Command{Kind: &statev1.Command_RestoreAbort{
		RestoreAbort: &statev1.RestoreAbort{Generation: run.generation},
	}})
	if err != nil {
		run.store.log.Warn("rows of a failed restore stay staged until the next one", "error", err)
	}
}

func stagedRows(s *machine.State) iter.Seq[*statev1.StagedRow] {
	return func(yield func(*statev1.StagedRow) bool) {
		for r := range s.All() {
			if !yield(&statev1.StagedRow{Table: r.Table, Key: r.Key, Value: r.Value}) {
				return
			}
		}
	}
}
