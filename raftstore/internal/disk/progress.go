package disk

import (
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// leastRate is the slowest disk that a snapshot is synced to: its bytes a second beyond the limit of a call.
const leastRate = 8 << 20

// watchedSnapshots watches the snapshot store by its progress: each read and write has the limit of a call, however
// long the snapshot takes as a whole. The sync at the end has more, by the bytes that were written.
type watchedSnapshots struct {
	raft.SnapshotStore
	health *Health
}

// Create implements raft.SnapshotStore.
func (s watchedSnapshots) Create(
	version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64,
	trans raft.Transport,
) (raft.SnapshotSink, error) {
	var sink raft.SnapshotSink
	err := s.health.snapshot("creating a snapshot", func() (err error) {
		sink, err = s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &watchedSink{SnapshotSink: sink, health: s.health}, nil
}

// Open implements raft.SnapshotStore.
func (s watchedSnapshots) Open(id string) (meta *raft.SnapshotMeta, r io.ReadCloser, err error) {
	meta, r, err = s.SnapshotStore.Open(id)
	if err != nil {
		return nil, nil, err
	}
	return meta, watchedReader{ReadCloser: r, health: s.health}, nil
}

type watchedSink struct {
	raft.SnapshotSink
	health  *Health
	written int
}

// Write implements io.Writer.
func (s *watchedSink) Write(p []byte) (n int, err error) {
	err = s.health.snapshot("writing a snapshot", func() error { n, err = s.SnapshotSink.Write(p); return err })
	s.written += n
	return n, err
}

// Close implements io.Closer. It syncs the snapshot.
func (s *watchedSink) Close() error {
	limit := s.health.watchdog.limit + time.Duration(s.written)*time.Second/leastRate
	defer s.health.watchdog.beginFor("syncing a snapshot", limit)()
	err := s.SnapshotSink.Close()
	if noRoom(err) {
		s.health.refuse(err)
	}
	return err
}

type watchedReader struct {
	io.ReadCloser
	health *Health
}

// Read implements io.Reader.
func (r watchedReader) Read(p []byte) (n int, err error) {
	err = r.health.snapshot("reading a snapshot", func() error { n, err = r.ReadCloser.Read(p); return err })
	return n, err
}

// snapshot makes one call to the snapshot store. Raft continues after its errors, so that they are returned.
func (h *Health) snapshot(what string, fn func() error) error {
	end := h.begin(what)
	err := fn()
	end()
	if noRoom(err) {
		h.refuse(err)
	}
	return err
}
