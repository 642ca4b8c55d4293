package process

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func TestCollectorPercent(t *testing.T) {
	for inUse, want := range map[uint64]int{
		0: 100, 1 << 20: 200, 16 << 20: 200, 32 << 20: 100, 48 << 20: 66, 64 << 20: 50, 10 << 30: 50, 1 << 63: 50,
	} {
		require.Equal(t, want, collectorPercent(inUse), "%d bytes in use", inUse)
	}
}

func TestGroupMemory(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  uint64
	}{
		"version 2": {map[string]string{
			"proc/self/cgroup": "0::/system.slice/entente.service\n", "sys/fs/cgroup/system.slice/memory.max": "max\n",
			"sys/fs/cgroup/system.slice/entente.service/memory.max": "536870912\n",
		}, 512 << 20},
		"version 2, a smaller limit above": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "1000\n",
			"sys/fs/cgroup/a/b/memory.max": "2000\n",
		}, 1000},
		"version 2 in a container": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "2000\n",
		}, 2000},
		"version 2 without a limit": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n",
		}, 0},
		"version 1": {map[string]string{
			"proc/self/cgroup": "12:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/x\n",
			"sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "3000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":          "9223372036854771712\n",
		}, 3000},
		"version 1 in a container with the paths of the host": {map[string]string{
			"proc/self/cgroup":                           "4:memory:/docker/1\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "3000\n",
		}, 3000},
		"version 1 without a limit": {map[string]string{
			"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0},
		"no control groups": {nil, 0},
		"what cannot be read": {map[string]string{
			"proc/self/cgroup": "4\n::\n0::/\n", "sys/fs/cgroup/memory.max": "-1",
		}, 0},
		"a path that leads away": {map[string]string{
			"proc/self/cgroup": "0::/../../a\n", "sys/fs/cgroup/a/memory.max": "7",
		}, 7},
	} {
		t.Run(name, func(t *testing.T) {
			files := fstest.MapFS{}
			for name, data := range c.files {
				files[name] = &fstest.MapFile{Data: []byte(data)}
			}
			require.Equal(t, c.want, groupMemory(files))
		})
	}
	require.EqualValues(t, 900, memoryLimit(1000, 7))
	require.EqualValues(t, 7, memoryLimit(0, 7))
}
