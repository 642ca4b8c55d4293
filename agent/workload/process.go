package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

// Process is the process at the other end of a connection, as the kernel has named it.
type Process struct {
	PID      int32
	UID, GID uint32
	// start identifies the process beside its PID, which the kernel uses again.
	start uint64
	// handle is a descriptor of the process, or -1. It is closed with the connection.
	handle *atomic.Int64
}

// String names the process in logs.
func (p Process) String() string { return fmt.Sprintf("pid %d, uid %d, gid %d", p.PID, p.UID, p.GID) }

// Attestor finds out selectors of one type.
type Attestor interface {
	// Type returns the type of the selectors, such as "unix".
	Type() string
	// Attest returns the selectors of a process without their type. It is called from many goroutines, and must not
	// keep the process. An error means that the process is not attested at all.
	Attest(ctx context.Context, p Process) ([]string, error)
}

// ErrGone means that the process ended, or was replaced by another one, while it was attested.
var ErrGone = errors.New("the process has ended")

// Attest returns the selectors of a process by all attestors, sorted.
func Attest(ctx context.Context, p Process, attestors []Attestor) ([]string, error) {
	if err := p.alive(); err != nil {
		return nil, err
	}
	var selectors []string
	for _, a := range attestors {
		values, err := a.Attest(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("attest %s by %s: %w", p, a.Type(), err)
		}
		for _, v := range values {
			selectors = append(selectors, a.Type()+":"+v)
		}
	}
	if err := p.alive(); err != nil {
		return nil, err
	}
	slices.Sort(selectors)
	return slices.Compact(selectors), nil
}

// parseStart returns the start time in the content of /proc/PID/stat. The second field is the name of the program, in
// parentheses, which can contain any character.
func parseStart(stat string) (uint64, error) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errors.New("/proc/PID/stat is malformed")
	}
	const startTime = 22 - 3 // its field, counted from the one after the name
	fields := strings.Fields(stat[end+1:])
	if len(fields) <= startTime {
		return 0, errors.New("/proc/PID/stat has too few fields")
	}
	var start uint64
	_, err := fmt.Sscan(fields[startTime], &start)
	return start, err
}
