package workload

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// soPeerPIDFD is SO_PEERPIDFD of Linux 6.5, which package unix does not have.
const soPeerPIDFD = 77

// peerOf returns the process that has connected a Unix socket.
func peerOf(conn *net.UnixConn) (Process, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Process{}, err
	}
	var cred *unix.Ucred
	var credErr error
	handle := -1
	err = raw.Control(func(fd uintptr) {
		if cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr != nil {
			return
		}
		if h, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, soPeerPIDFD); err == nil {
			handle = h
		}
	})
	if err := errors.Join(err, credErr); err != nil {
		return Process{}, fmt.Errorf("identify the process at the other end: %w", err)
	}
	p := Process{PID: cred.Pid, UID: cred.Uid, GID: cred.Gid, handle: &atomic.Int64{}}
	p.handle.Store(int64(handle))
	if p.PID <= 0 {
		p.release()
		return Process{}, errors.New("the kernel gives no ID of the process at the other end: it is in a PID " +
			"namespace " +
			"that the agent does not see; run the agent in the namespace of the node")
	}
	if p.start, err = startOf(p.PID); err == nil {
		err = p.alive()
	}
	if err != nil {
		p.release()
		return Process{}, fmt.Errorf("identify pid %d: %w", p.PID, err)
	}
	return p, nil
}

func startOf(pid int32) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return 0, ErrGone
	}
	if err != nil {
		return 0, err
	}
	return parseStart(string(stat))
}

// alive returns nil if the process is still the one that has connected.
func (p Process) alive() error {
	if p.handle != nil {
		if fd := p.handle.Load(); fd >= 0 {
			// A descriptor of a process is readable once that has ended.
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor
			n, err := unix.Poll(poll, 0)
			for errors.Is(err, unix.EINTR) {
				n, err = unix.Poll(poll, 0)
			}
			if err != nil {
				return fmt.Errorf("look at pid %d: %w", p.PID, err)
			}
			if n > 0 {
				return ErrGone
			}
		}
	}
	start, err := startOf(p.PID)
	if err != nil {
		return err
	}
	if start != p.start {
		return ErrGone
	}
	return nil
}

// release closes the descriptor of the process.
func (p Process) release() {
	if fd := p.handle.Swap(-1); fd >= 0 {
		_ = unix.Close(int(fd))
	}
}
