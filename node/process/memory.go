package process

import (
	"context"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// memoryPace is the interval at which the memory limit of the control group is read again.
const memoryPace = time.Minute

// BoundMemory sets Go's memory limit to nine tenths of that of the process's control group, and follows its changes,
// unless the environment sets GOMEMLIMIT. The rest is for what Go does not count.
func BoundMemory(ctx context.Context) error {
	if os.Getenv("GOMEMLIMIT") != "" {
		<-ctx.Done()
		return nil
	}
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	ticker := time.NewTicker(memoryPace)
	defer ticker.Stop()
	for {
		debug.SetMemoryLimit(memoryLimit(groupMemory(os.DirFS("/")), before))
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// memoryLimit returns the limit for [debug.SetMemoryLimit] in a control group with that much memory, 0 for no limit.
func memoryLimit(group uint64, otherwise int64) int64 {
	if group == 0 || group > math.MaxInt64 {
		return otherwise
	}
	return int64(group / 10 * 9)
}

// groupMemory returns the smallest memory limit in bytes of the process's control group and those above it, or 0 if
// there is none. It reads version 2 and version 1 of control groups. In a container the paths can be those of the host;
// then the mounted root is the group of the process.
func groupMemory(root fs.FS) uint64 {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	var least uint64
	for line := range strings.Lines(string(groups)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		var base, file string
		switch {
		case fields[0] == "0" && fields[1] == "":
			base, file = "sys/fs/cgroup", "memory.max"
		case slices.Contains(strings.Split(fields[1], ","), "memory"):
			base, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for group := path.Clean("/" + fields[2]); ; group = path.Dir(group) {
			if limit := readLimit(root, path.Join(base, group, file)); limit > 0 && (least == 0 || limit < least) {
				least = limit
			}
			if group == "/" {
				break
			}
		}
	}
	return least
}

// noLimit is the least value that version 1 has for no limit: 2^63 rounded down to a page.
const noLimit = math.MaxInt64 - 1<<20

func readLimit(root fs.FS, name string) uint64 {
	raw, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	limit, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil || limit >= noLimit {
		return 0 // "max" among others
	}
	return limit
}
