package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/e2e/chaos"
)

// world is where the members of a run of chaos are: each has a network namespace with an address on a common bridge, a
// disk of its own, and a clock that can be shifted. The test's process is at the bridge, in namespaces of its own for
// networks, mounts and processes, so that everything ends with it.
type world struct {
	t     *testing.T
	dir   string
	disks []*faultDisk
}

// diskBytes is the size of a member's disk.
const diskBytes = 96 << 20

// buildFaultFS builds the file system whose disk can fail.
func buildFaultFS(t *testing.T, path string) {
	t.Helper()
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = "faultfs"
	out, err := build.CombinedOutput()
	require.NoError(t, err, "build faultfs: %s", out)
}

// newWorld prepares the places of n members, with disks of the program faultfs. The process must be in namespaces of
// its own.
func newWorld(t *testing.T, n int, faultfs string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	require.NoError(t, os.Chmod(w.dir, 0o700))
	require.NoError(t, syscall.Mount("chaos", "/run", "tmpfs", 0, "")) // for ip netns
	w.sh("ip link set lo up; ip link add hub type bridge; ip addr add %s/24 dev hub; ip link set hub up", address(254))
	for i := range n {
		w.sh("ip netns add m%[1]d; ip link add v%[1]d type veth peer name eth0 netns m%[1]d; "+
			"ip link set v%[1]d master hub; ip link set v%[1]d up; "+
			"ip -n m%[1]d addr add %[2]s/24 dev eth0; ip -n m%[1]d link set eth0 up; "+
			"ip -n m%[1]d link set lo up", i, address(i+1))
		w.disks = append(w.disks, newFaultDisk(t, faultfs, filepath.Join(w.dir, fmt.Sprint("disk", i))))
		w.shift(i, 0)
	}
	return w
}

// address is an address on the bridge.
func address(n int) string { return fmt.Sprintf("10.77.0.%d", n) }

// sh runs commands of a shell.
func (w *world) sh(format string, arguments ...any) {
	w.t.Helper()
	out, err := exec.Command("sh", "-e", "-c", fmt.Sprintf(format, arguments...)).CombinedOutput()
	require.NoError(w.t, err, "%s", out)
}

// host is where a member runs.
func (w *world) host(i int) host {
	return host{
		dir: w.disks[i].mount, ip: address(i + 1), prefix: []string{"ip", "netns", "exec", fmt.Sprint("m", i)},
		env: []string{clockEnv + "=" + w.clock(i)},
	}
}

// members matches the addresses of members, and not that of the test.
const membersSet = "10.77.0.1-10.77.0.99"

// filter replaces the rules by which a member loses packets: of what comes from members, and of what goes to them. An
// empty rule loses nothing.
func (w *world) filter(i int, input, output string) {
	w.t.Helper()
	rules := "table inet chaos\ndelete table inet chaos\ntable inet chaos {\n"
	for hook, rule := range map[string]string{"input": input, "output": output} {
		if rule == "" {
			continue
		}
		side := map[string]string{"input": "saddr", "output": "daddr"}[hook]
		rules += fmt.Sprintf("chain %s {\ntype filter hook %s priority 0;\nip %s %s %s\n}\n", hook, hook, side,
			membersSet, rule)
	}
	cmd := exec.Command("ip", "netns", "exec", fmt.Sprint("m", i), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules + "}\n")
	out, err := cmd.CombinedOutput()
	require.NoError(w.t, err, "%s: %s", rules, out)
}

// cut begins a fault of the network at a member, and returns what ends it, or nil if it has ended.
func (w *world) cut(r *chaosRun, kind chaos.Kind, i int, lasts time.Duration) (end func()) {
	const all = "drop"
	lose := fmt.Sprintf("numgen random mod 100 < %s drop", strings.TrimPrefix(string(kind), "loss-"))
	switch kind {
	case chaos.Isolate:
		w.filter(i, all, all)
	case chaos.Deaf:
		w.filter(i, all, "")
	case chaos.Mute:
		w.filter(i, "", all)
	case chaos.Loss30, chaos.Loss50:
		for i := range w.disks {
			w.filter(i, lose, "")
		}
	case chaos.Flap:
		for began := time.Now(); time.Since(began) < lasts; {
			w.filter(i, all, all)
			r.wait(time.Second)
			w.filter(i, "", "")
			r.wait(time.Second)
		}
		return nil
	}
	return func() {
		for i := range w.disks {
			w.filter(i, "", "")
		}
	}
}

// faultDisk is the disk of a member: a small file system, reached through faultfs.
type faultDisk struct {
	t           *testing.T
	room, mount string
	words       io.Writer
	answers     *bufio.Scanner
}

func newFaultDisk(t *testing.T, program, dir string) *faultDisk {
	t.Helper()
	d := &faultDisk{t: t, room: dir + ".room", mount: dir}
	require.NoError(t, os.Mkdir(d.room, 0o700))
	require.NoError(t, os.Mkdir(d.mount, 0o700))
	require.NoError(t, syscall.Mount("chaos", d.room, "tmpfs", 0, "mode=0700,size="+strconv.Itoa(diskBytes)))
	cmd := exec.Command(program, d.room, d.mount)
	cmd.Stderr = os.Stderr
	words, err := cmd.StdinPipe()
	require.NoError(t, err)
	answers, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	d.words, d.answers = words, bufio.NewScanner(answers)
	d.await("mounted")
	t.Cleanup(func() {
		_ = words.Close() // it ends the program
		_ = cmd.Wait()
		_ = syscall.Unmount(d.room, syscall.MNT_DETACH)
	})
	return d
}

func (d *faultDisk) await(word string) {
	d.t.Helper()
	require.True(d.t, d.answers.Scan(), "faultfs ended: %v", d.answers.Err())
	require.Equal(d.t, word, d.answers.Text())
}

// set sets the fault of the disk, or "ok".
func (d *faultDisk) set(fault string) {
	d.t.Helper()
	_, err := fmt.Fprintln(d.words, fault)
	require.NoError(d.t, err)
	d.await(fault)
}

// fill leaves no room, and empty gives it back.
func (d *faultDisk) fill() {
	d.t.Helper()
	f, err := os.Create(filepath.Join(d.room, "ballast"))
	require.NoError(d.t, err)
	defer f.Close()
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			require.ErrorIs(d.t, err, syscall.ENOSPC)
			block = block[:len(block)/2]
		}
	}
}

func (d *faultDisk) empty() {
	d.t.Helper()
	require.NoError(d.t, os.Remove(filepath.Join(d.room, "ballast")))
}

// clockEnv names the file with the seconds by which the clock of a member's build is shifted.
const clockEnv = "ENTENTE_CHAOS_CLOCK"

func (w *world) clock(i int) string { return filepath.Join(w.dir, fmt.Sprint("clock", i)) }

// shift sets the shift of a member's clock.
func (w *world) shift(i int, by time.Duration) {
	w.t.Helper()
	next := w.clock(i) + ".new"
	require.NoError(w.t, os.WriteFile(next, fmt.Appendf(nil, "%d\n", int64(by.Seconds())), 0o600))
	require.NoError(w.t, os.Rename(next, w.clock(i)))
}

// shiftedClock is added to the standard library's package time. A goroutine reads the shift, because the runtime calls
// time.Now where no system call may be made.
const shiftedClock = `package time

import (
	"sync/atomic"
	"syscall"
)

var chaosShift atomic.Int64

func init() {
	file, ok := syscall.Getenv("` + clockEnv + `")
	if !ok {
		return
	}
	chaosShift.Store(chaosRead(file))
	go func() {
		for {
			Sleep(20 * Millisecond)
			chaosShift.Store(chaosRead(file))
		}
	}()
}

func chaosRead(file string) int64 {
	fd, err := syscall.Open(file, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return chaosShift.Load()
	}
	defer syscall.Close(fd)
	var text [24]byte
	n, _ := syscall.Read(fd, text[:])
	var seconds, sign int64 = 0, 1
	for _, c := range text[:max(n, 0)] {
		switch {
		case c == '-':
			sign = -1
		case '0' <= c && c <= '9':
			seconds = 10*seconds + int64(c-'0')
		}
	}
	return sign * seconds
}
`

// buildWithClock builds the command with a clock that can be shifted: the same source, with another package time. As
// when a real clock is set, the monotonic clock goes on.
func buildWithClock(t *testing.T, path string) {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	library := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(library, "time.go"))
	require.NoError(t, err)
	const begin, read, rest = "func Now() Time {", "\n\tsec, nsec, mono := runtimeNow()", "\n\tif mono == 0 {"
	head, tail, found := strings.Cut(string(source), begin+read+rest)
	require.True(t, found, "time.Now of this Go version reads the clock in another way")
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	dir := filepath.Join(cache, "entente-chaos") // always the same, so that the build is cached
	require.NoError(t, os.MkdirAll(dir, 0o700))
	patched := head + begin + read + "\n\tsec += chaosShift.Load()" + rest + tail
	replace := map[string]string{}
	for name, text := range map[string]string{"time.go": patched, "chaos.go": shiftedClock} {
		replace[filepath.Join(library, name)] = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	out, err := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", path,
		"../cmd/entente").CombinedOutput()
	require.NoError(t, err, "build the command with a clock that can be shifted: %s", out)
}

// insideEnv is set for the process that is in namespaces of its own, to the folder of the programs. They are built
// before: there is no network inside, and the time of the run does not include it.
const insideEnv = "ENTENTE_CHAOS_INSIDE"

// isolateMounts prepares the mounts of a process that is in namespaces of its own.
func isolateMounts(t *testing.T) {
	t.Helper()
	require.NoError(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	require.NoError(t, syscall.Mount("proc", "/proc", "proc", 0, ""))
}

// requireTools fails the test if something is missing that faults need.
func requireTools(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"ip", "nft"} {
		_, err := exec.LookPath(tool)
		require.NoError(t, err, "chaos needs the commands ip and nft: apt-get install iproute2 nftables")
	}
	_, err := os.Stat("/dev/fuse")
	require.NoError(t, err, "chaos needs FUSE, for the faults of disks")
}

// runInNamespaces runs this test again, in namespaces of its own.
func runInNamespaces(t *testing.T, programs string) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, append([]string{"-test.run", "^" + t.Name() + "$", "-test.v", "-test.timeout", "0"},
		os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), insideEnv+"="+programs)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	flags := uintptr(syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		flags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.SysProcAttr.Cloneflags = flags
	require.NoError(t, cmd.Run(), "chaos in namespaces of its own; they need root, or user namespaces")
}
