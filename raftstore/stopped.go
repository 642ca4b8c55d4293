package raftstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/disk"
	"github.com/ententehq/entente/raftstore/internal/logfile"
	"github.com/ententehq/entente/raftstore/internal/machine"
)

// Stopped is what a member that does not run has on disk. While it is open, the member cannot be started.
type Stopped struct {
	config  Config
	disk    *disk.Store
	state   *machine.State
	servers raft.Configuration
	written time.Time
}

// offlineLimit is how long one call to the disk of a stopped member may take before that is logged.
const offlineLimit = time.Minute

// OpenStopped opens the files of a member that does not run, and reads all that they have: the snapshot and the whole
// log, the end of which may not be committed. Config needs the MemberID, the Identity, the Address and the Dir.
func OpenStopped(config Config) (*Stopped, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(config.Dir, logfile.Name)); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s has no state of a member: there is no %s", config.Dir, logfile.Name)
	}
	s := &Stopped{config: config}
	s.disk, err = disk.Open(disk.Config{
		Dir: config.Dir, Limit: offlineLimit, Observe: func(time.Duration) {}, Appending: func() {},
		Fail: func(err error) { config.Logger.Warn("the disk is slow", "error", err) }, Logger: config.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("open the stopped member %s: %w", config.MemberID, err)
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("read the state of the stopped member %s: %w", config.MemberID,
			errors.Join(err, s.disk.Close()))
	}
	return s, nil
}

// load applies the newest snapshot and the log.
func (s *Stopped) load() error {
	var failure error
	m := machine.New(func(err error) { failure = err }, func() {})
	snapshots, err := s.disk.Snapshots.List()
	if err != nil {
		return err
	}
	if len(snapshots) > 0 {
		meta, content, err := s.disk.Snapshots.Open(snapshots[0].ID)
		if err != nil {
			return err
		}
		if err := errors.Join(m.Restore(content), content.Close()); err != nil {
			return err
		}
		s.servers = meta.Configuration
	}
	last, err := s.disk.LastIndex()
	if err != nil {
		return err
	}
	for index := m.State().Revision + 1; index <= last; index++ {
		l := &raft.Log{}
		if err := s.disk.Log.GetLog(index, l); err != nil {
			return fmt.Errorf("read entry %d of the log: %w", index, err)
		}
		if !l.AppendedAt.IsZero() {
			s.written = l.AppendedAt
		}
		switch l.Type {
		case raft.LogConfiguration:
			s.servers = raft.DecodeConfiguration(l.Data)
			m.ApplyBatch([]*raft.Log{l})
		case raft.LogCommand:
			m.ApplyBatch([]*raft.Log{l})
		}
		if failure != nil {
			return failure
		}
	}
	s.state = m.State()
	if s.state.ClusterID == "" {
		return fmt.Errorf("it belongs to no cluster yet: the log ends at %d", last)
	}
	return nil
}

// View returns the state after the last entry of the log.
func (s *Stopped) View() *View { return &View{state: s.state} }

// Others returns the other members of the latest configuration in the log.
func (s *Stopped) Others() ([]Server, error) {
	var others []Server
	for _, server := range s.servers.Servers {
		memberID, identity, err := parseServerID(server.ID)
		if err != nil {
			return nil, err
		}
		if server.ID != serverID(s.config.MemberID, s.config.Identity) {
			others = append(others, Server{
				MemberID: memberID, Identity: identity, Address: string(server.Address),
				Voter: server.Suffrage == raft.Voter,
			})
		}
	}
	return others, nil
}

// Member reports whether this member is in the latest configuration in the log, with its present identity key.
func (s *Stopped) Member() bool {
	for _, server := range s.servers.Servers {
		if server.ID == serverID(s.config.MemberID, s.config.Identity) {
			return true
		}
	}
	return false
}

// LastIndex returns the index of the last entry of the log.
func (s *Stopped) LastIndex() (Revision, error) {
	last, err := s.disk.LastIndex()
	return Revision(last), err
}

// Contact returns the last contact with a leader that is on disk, and Written when the last entry was written by a
// leader. The zero time means that there is none.
func (s *Stopped) Contact() time.Time { return s.disk.Applied.Last().Contact }

// Written is described at [Stopped.Contact].
func (s *Stopped) Written() time.Time { return s.written }

// Recover makes a cluster of this member alone, out of all that it has: what is not committed becomes so. The changes
// of fn, a transaction, are part of that. It is done in one step, and can be repeated. It returns the index of the last
// entry. The member publishes nothing before it has applied that one.
func (s *Stopped) Recover(fn func(tx *Tx) error) (Revision, error) {
	tx := newTx(s.state)
	if err := errors.Join(fn(tx), tx.tooLarge); err != nil {
		return 0, err
	}
	transaction, err := tx.command()
	if err != nil {
		return 0, err
	}
	incarnation, err := s.disk.NextIncarnation()
	if err != nil {
		return 0, err
	}
	id := serverID(s.config.MemberID, s.config.Identity)
	entry, err := proto.Marshal(&statev1.Entry{
		Version: machine.FirstCommandVersion,
		Commands: []*statev1.Command{{
			Id:   &statev1.CommandID{Member: string(id), Incarnation: incarnation, Counter: 1},
			Kind: &statev1.Command_Transaction{Transaction: transaction},
		}},
	})
	if err != nil {
		return 0, fmt.Errorf("encode the recovery: %w", err)
	}
	last, err := s.disk.Recover(raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: id, Address: raft.ServerAddress(s.config.Address),
	}}}, entry)
	if err != nil {
		return 0, fmt.Errorf("write the recovery: %w", err)
	}
	return Revision(last), nil
}

// Close closes the files.
func (s *Stopped) Close() error { return s.disk.Close() }
