package port_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// smallDisk makes the folder of a member that does not run yet a file system of its own, of 64 MiB.
func (m *member) smallDisk() *member {
	m.t.Helper()
	if err := unix.Mount("tmpfs", m.dir, "tmpfs", 0, "size=64m"); err != nil {
		if os.Getenv("CI") != "" {
			m.t.Fatalf("mount a tmpfs: %v", err)
		}
		m.t.Skipf("this test needs the right to mount a tmpfs (CAP_SYS_ADMIN): %v", err)
	}
	m.t.Cleanup(func() { require.NoError(m.t, unix.Unmount(m.dir, unix.MNT_DETACH)) })
	return m
}

// fillDisk leaves no more than a mebibyte of the member's file system.
func (m *member) fillDisk() {
	m.t.Helper()
	var s unix.Statfs_t
	require.NoError(m.t, unix.Statfs(m.dir, &s))
	f, err := os.Create(filepath.Join(m.dir, "fill"))
	require.NoError(m.t, err)
	defer f.Close()
	free := int64(s.Bavail) * s.Bsize //nolint:gosec // G115: of 64 MiB
	require.NoError(m.t, unix.Fallocate(int(f.Fd()), 0, 0, free-1<<20))
}

func (m *member) freeDisk() {
	m.t.Helper()
	require.NoError(m.t, os.Remove(filepath.Join(m.dir, "fill")))
}

// TestNobodyIsReadyToWriteOnFullDisks: as long as the disks of a majority are full, no member is ready to write,
// whoever leads or does not lead: either it has no leader, or the reason for which the leader cannot commit.
func TestNobodyIsReadyToWriteOnFullDisks(t *testing.T) {
	a := newMember(t, "eu-1").smallDisk().form()
	all := []*member{a, newMember(t, "eu-2").smallDisk().joined(a), newMember(t, "eu-3").smallDisk().joined(a)}
	a.eventually("all vote", func() error {
		for _, s := range a.store.Servers().List() {
			if !s.Voter {
				return fmt.Errorf("%s does not", s.MemberID)
			}
		}
		return nil
	})
	reason := regexp.MustCompile(`^(the new leader \S+ has not reported yet whether it can commit; the one before ` +
		`could not: )?(no majority of the members can write: |the leader \S+ cannot write: )`)
	// obstacle is what /ready/write shows of the leader.
	obstacle := func(m *member) error {
		if _, known := m.store.Leader(); !known {
			return errors.New("no leader is known")
		}
		return m.manager.CanCommit()
	}
	unready := func() {
		for _, m := range all {
			m.eventually("is not ready to write", func() error {
				switch err := obstacle(m); {
				case err == nil:
					return errors.New("it is ready to write")
				case err.Error() != "no leader is known" && !reason.MatchString(err.Error()):
					return fmt.Errorf("it reports %w", err)
				}
				return nil
			})
		}
	}
	ready := func() {
		for _, m := range all {
			m.eventually("is ready to write", func() error { return obstacle(m) })
		}
	}
	ready()
	full := func(m *member) bool { return m.store.Disk().Err() != nil }
	for _, m := range all { // in any order, and whether or not the lead moves meanwhile
		m.fillDisk()
		m.eventually("notices that its disk is full", func() error {
			if !full(m) {
				return errors.New("it has not")
			}
			return nil
		})
	}
	unready()
	all[1].freeDisk()
	unready()
	for _, m := range []*member{all[0], all[2]} {
		m.freeDisk()
	}
	ready()
	all[0].write()
}
