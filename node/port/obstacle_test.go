package port_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// TestLeaderThatCannotCommit: every member of a cluster, and so its /ready/write, has the reason for which the leader
// cannot commit: its own full disk, while no other member can lead, and the disks of the two others. It ends with it.
func TestLeaderThatCannotCommit(t *testing.T) {
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
	leading := func() *member {
		var leader *member
		a.eventually("one of them leads", func() error {
			for _, m := range all {
				if m.store.IsLeader() {
					leader = m
					return nil
				}
			}
			return errors.New("none")
		})
		return leader
	}
	reports := func(text string) {
		for _, m := range all {
			m.eventually("reports "+text, func() error {
				switch err := m.manager.CanCommit(); {
				case err == nil && text == "":
					return nil
				case err == nil || text == "" || !strings.Contains(err.Error(), text):
					return fmt.Errorf("it reports %w", err)
				}
				return nil
			})
		}
	}
	reports("")

	// The followers first: the leader would hand over to one of them.
	leader := leading()
	for _, m := range all {
		if m != leader {
			m.fillDisk()
		}
	}
	reports("no majority of the members can write: the disk of ")
	leader.fillDisk()
	reports("the leader " + leader.id + " cannot write: ")
	for _, m := range all {
		m.freeDisk()
	}
	reports("")
	leading().write()
}
