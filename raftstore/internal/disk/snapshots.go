package disk

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// snapshots keeps the snapshots of the Raft log, each in one file. It implements raft.SnapshotStore.
//
// A file has a magic, the length and the CRC-32C of Raft's description of the snapshot, that description in JSON, the
// state, and the SHA-256 of everything before. The description can be read alone; the state is only returned after the
// whole file was verified. A file that does not verify is set aside under another name, so that Raft uses the older
// snapshot with the log after it.
type snapshots struct {
	dir string
	log hclog.Logger
	// complete is called with the index of a snapshot that is complete.
	complete func(index uint64) error
}

const (
	snapshotMagic     = "entente-raft-snapshot\x01"
	snapshotSuffix    = ".snapshot"
	unfinishedSuffix  = ".unfinished"
	damagedSuffix     = ".damaged"
	snapshotHeadBytes = len(snapshotMagic) + 4 + 4
	// maxDescriptionBytes bounds the description: some hundred bytes a member.
	maxDescriptionBytes = 1 << 20
)

// openSnapshots opens the folder of the snapshots, removes what a stopped process left unfinished, and verifies the
// snapshots in full.
func openSnapshots(dir string, log hclog.Logger, complete func(uint64) error) (*snapshots, error) {
	s := &snapshots{dir: dir, log: log, complete: complete}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), unfinishedSuffix) {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return nil, err
			}
		}
	}
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, meta := range all {
		if _, content, err := s.Open(meta.ID); err == nil {
			err = content.Close()
			if err != nil {
				return nil, err
			}
		} else if !errors.Is(err, errSnapshotDamaged) {
			return nil, err
		}
	}
	return s, nil
}

// newest returns the index of the newest snapshot; 0: there is none.
func (s *snapshots) newest() (uint64, error) {
	all, err := s.List()
	if err != nil || len(all) == 0 {
		return 0, err
	}
	return all[0].Index, nil
}

var errSnapshotDamaged = errors.New("the snapshot is damaged")

// List implements raft.SnapshotStore. The newest comes first. It sets those aside whose description does not verify.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list the snapshots: %w", err)
	}
	var all []*raft.SnapshotMeta
	for _, f := range files {
		id, ok := strings.CutSuffix(f.Name(), snapshotSuffix)
		if !ok {
			continue
		}
		meta, err := s.describe(id)
		if errors.Is(err, errSnapshotDamaged) {
			s.setAside(id, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, meta)
	}
	slices.SortFunc(all, func(a, b *raft.SnapshotMeta) int { return -compareSnapshots(a, b) })
	return all, nil
}

func compareSnapshots(a, b *raft.SnapshotMeta) int {
	switch {
	case a.Term != b.Term:
		return int(min(max(int64(a.Term)-int64(b.Term), -1), 1))
	case a.Index != b.Index:
		return int(min(max(int64(a.Index)-int64(b.Index), -1), 1))
	}
	return strings.Compare(a.ID, b.ID)
}

func (s *snapshots) path(id string) string { return filepath.Join(s.dir, id+snapshotSuffix) }

// setAside renames a damaged snapshot, so that it is not used again; the one set aside before is replaced.
func (s *snapshots) setAside(id string, reason error) {
	to := filepath.Join(s.dir, "snapshot"+damagedSuffix)
	s.log.Error("a snapshot is damaged and was set aside; the older one and the log after it are used",
		"file", s.path(id), "kept_as", to, "reason", reason)
	if err := os.Rename(s.path(id), to); err != nil {
		s.log.Error("a damaged snapshot could not be set aside", "file", s.path(id), "error", err)
	}
}

// describe reads the description of a snapshot.
func (s *snapshots) describe(id string) (*raft.SnapshotMeta, error) {
	f, err := os.Open(s.path(id))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return readDescription(f, id, info.Size())
}

func snapshotDamaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errSnapshotDamaged, fmt.Sprintf(format, args...))
}

// readDescription reads the beginning of a snapshot of a size.
func readDescription(r io.Reader, id string, size int64) (*raft.SnapshotMeta, error) {
	head := make([]byte, snapshotHeadBytes)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, orCutOff(err)
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return nil, snapshotDamaged("it does not begin like one")
	}
	length := binary.BigEndian.Uint32(head[len(snapshotMagic):])
	if length > maxDescriptionBytes {
		return nil, snapshotDamaged("its description has %d bytes", length)
	}
	description := make([]byte, length)
	if _, err := io.ReadFull(r, description); err != nil {
		return nil, orCutOff(err)
	}
	if binary.BigEndian.Uint32(head[len(snapshotMagic)+4:]) != descriptionSum(description) {
		return nil, snapshotDamaged("the checksum of its description does not match")
	}
	meta := &raft.SnapshotMeta{}
	if err := json.Unmarshal(description, meta); err != nil {
		return nil, snapshotDamaged("its description does not decode: %v", err)
	}
	meta.Size = size - int64(snapshotHeadBytes) - int64(length) - sha256.Size
	switch {
	case meta.ID != id:
		return nil, snapshotDamaged("it is that of %q", meta.ID)
	case meta.Size < 0:
		return nil, snapshotDamaged("it is cut off")
	}
	return meta, nil
}

func orCutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return snapshotDamaged("it is cut off")
	}
	return err
}

func descriptionSum(description []byte) uint32 {
	return crc32.Checksum(description, crc32.MakeTable(crc32.Castagnoli))
}

// snapshotContent is the state in a snapshot that was verified.
type snapshotContent struct {
	io.Reader
	io.Closer
}

// Open implements raft.SnapshotStore. It verifies the whole file first, and sets it aside if that fails.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	f, err := os.Open(s.path(id))
	if err != nil {
		return nil, nil, fmt.Errorf("open a snapshot: %w", err)
	}
	meta, from, err := verifySnapshot(f, id)
	if err != nil {
		if errors.Is(err, errSnapshotDamaged) {
			s.setAside(id, err)
		}
		return nil, nil, fmt.Errorf("open the snapshot %s: %w", s.path(id), errors.Join(err, f.Close()))
	}
	return meta, snapshotContent{bufio.NewReaderSize(io.NewSectionReader(f, from, meta.Size), 64<<10), f}, nil
}

// verifySnapshot reads a whole file, and returns its description and where the state in it begins.
func verifySnapshot(f *os.File, id string) (meta *raft.SnapshotMeta, from int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if meta, err = readDescription(f, id, info.Size()); err != nil {
		return nil, 0, err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, info.Size()-sha256.Size)); err != nil {
		return nil, 0, err
	}
	stored := make([]byte, sha256.Size)
	if _, err := f.ReadAt(stored, info.Size()-sha256.Size); err != nil {
		return nil, 0, err
	}
	if !bytes.Equal(stored, sum.Sum(nil)) {
		return nil, 0, snapshotDamaged("its SHA-256 does not match")
	}
	return meta, info.Size() - sha256.Size - meta.Size, nil
}

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(
	version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64,
	_ raft.Transport,
) (raft.SnapshotSink, error) {
	return s.create(&raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, time.Now().UnixMilli()), Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	})
}

func (s *snapshots) create(meta *raft.SnapshotMeta) (raft.SnapshotSink, error) {
	if meta.Version != raft.SnapshotVersionMax {
		return nil, fmt.Errorf("write a snapshot: its version is %d, and this build writes %d",
			meta.Version, raft.SnapshotVersionMax)
	}
	description, err := json.Marshal(meta)
	if err != nil {
		return nil, fmt.Errorf("write a snapshot: %w", err)
	}
	f, err := os.OpenFile(s.path(meta.ID)+unfinishedSuffix, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write a snapshot: %w", err)
	}
	sink := &snapshotSink{store: s, meta: meta, file: f, sum: sha256.New()}
	sink.out = bufio.NewWriterSize(io.MultiWriter(f, sink.sum), 64<<10)
	head := append(make([]byte, 0, snapshotHeadBytes), snapshotMagic...)
	head = binary.BigEndian.AppendUint32(head, uint32(len(description)))
	head = binary.BigEndian.AppendUint32(head, descriptionSum(description))
	if _, err := sink.out.Write(append(head, description...)); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return sink, nil
}

// snapshotSink writes one snapshot.
type snapshotSink struct {
	store *snapshots
	meta  *raft.SnapshotMeta
	file  *os.File
	out   *bufio.Writer
	sum   hash.Hash
	ended bool
}

// ID implements raft.SnapshotSink.
func (w *snapshotSink) ID() string { return w.meta.ID }

// Write implements raft.SnapshotSink.
func (w *snapshotSink) Write(p []byte) (int, error) { return w.out.Write(p) }

// Close implements raft.SnapshotSink. The snapshot is on disk in full when it returns, or not there at all.
func (w *snapshotSink) Close() error {
	if w.ended {
		return nil
	}
	w.ended = true
	err := w.out.Flush()
	if err == nil {
		_, err = w.file.Write(w.sum.Sum(nil))
	}
	if err = errors.Join(err, w.file.Sync(), w.file.Close()); err != nil {
		return fmt.Errorf("write a snapshot: %w", errors.Join(err, os.Remove(w.file.Name())))
	}
	if err := os.Rename(w.file.Name(), w.store.path(w.meta.ID)); err != nil {
		return fmt.Errorf("write a snapshot: %w", err)
	}
	if err := syncFolder(w.store.dir); err != nil {
		return fmt.Errorf("write a snapshot: %w", err)
	}
	if err := w.store.complete(w.meta.Index); err != nil {
		return fmt.Errorf("record that a snapshot is complete: %w", err)
	}
	return w.store.reap()
}

// Cancel implements raft.SnapshotSink.
func (w *snapshotSink) Cancel() error {
	if w.ended {
		return nil
	}
	w.ended = true
	return errors.Join(w.file.Close(), os.Remove(w.file.Name()))
}

// reap removes the snapshots beyond those that are kept.
func (s *snapshots) reap() error {
	all, err := s.List()
	if err != nil {
		return err
	}
	for _, meta := range all[min(len(all), keptSnapshots):] {
		if err := os.Remove(s.path(meta.ID)); err != nil {
			return fmt.Errorf("remove an old snapshot: %w", err)
		}
	}
	return nil
}

// convert converts the snapshots that an earlier version wrote, which are folders. It leaves out what it cannot read.
func (s *snapshots) convert() error {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(files, func(f os.DirEntry) bool { return f.IsDir() }) {
		return nil
	}
	old, err := raft.NewFileSnapshotStoreWithLogger(filepath.Dir(s.dir), keptSnapshots, s.log)
	if err != nil {
		return err
	}
	all, err := old.List()
	if err != nil {
		return err
	}
	for _, meta := range slices.Backward(all) { // the newest last, so that it is not removed
		_, content, err := old.Open(meta.ID)
		if err != nil {
			s.log.Error("a snapshot of an earlier version is damaged and was left out", "snapshot", meta.ID,
				"reason", err)
			continue
		}
		err = s.copyOld(meta, content)
		if err := errors.Join(err, content.Close()); err != nil {
			return err
		}
	}
	for _, f := range files {
		if f.IsDir() {
			if err := os.RemoveAll(filepath.Join(s.dir, f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *snapshots) copyOld(meta *raft.SnapshotMeta, content io.Reader) error {
	sink, err := s.create(meta)
	if err != nil {
		return err
	}
	if _, err := io.Copy(sink, content); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
