package workload

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// maxCgroup bounds what is read of a process.
const maxCgroup = 64 << 10

// cgroupsOf returns the content of /proc/PID/cgroup.
func cgroupsOf(pid int32) (string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", fmt.Errorf("read the cgroup of the process: %w", err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxCgroup))
	return string(content), err
}

var (
	// roots are the outermost groups of pods, by the names that the kubelet gives them.
	roots = regexp.MustCompile(`^(kubepods|kubelet)(\.slice)?$`)
	// between are the groups from a root to a pod, which have the class of its service.
	between = regexp.MustCompile(
		`^(kubelet-)?kubepods(-(burstable|besteffort))?\.slice$|^(kubepods|burstable|besteffort)$`)
	pod = regexp.MustCompile(
		`^(?:[a-z-]+-)?pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?$`)
	// container is the group of a container, with the name of its runtime before the ID or not.
	container = regexp.MustCompile(`^(?:[a-z-]+[-:])*([0-9a-f]{64})(?:\.scope)?$`)
)

// containerOf returns the pod and the container that a process runs in, by the content of /proc/PID/cgroup. Only the
// outermost groups count, which the kubelet makes: a container can make groups of any name below its own, and a user
// below those of its session. ok is false for a process in no pod.
func containerOf(cgroups string) (podUID, containerID string, ok bool) {
	for line := range strings.Lines(cgroups) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		path, relative := fields[2], false
		for strings.HasPrefix(path, "/..") { // of an agent in a cgroup namespace of its own
			path, relative = path[len("/.."):], true
		}
		if uid, id, found := containerIn(strings.Split(strings.Trim(path, "/"), "/"), relative); found {
			if ok && (uid != podUID || id != containerID) {
				return "", "", false // hierarchies that differ: nothing is certain
			}
			podUID, containerID, ok = uid, id, true
		}
	}
	return podUID, containerID, ok
}

func containerIn(groups []string, relative bool) (podUID, containerID string, ok bool) {
	if !relative && !roots.MatchString(groups[0]) {
		return "", "", false
	}
	for i, g := range groups {
		if m := pod.FindStringSubmatch(g); m != nil {
			if i+1 == len(groups) {
				return "", "", false
			}
			id := container.FindStringSubmatch(groups[i+1])
			if id == nil {
				return "", "", false
			}
			return strings.ReplaceAll(m[1], "_", "-"), id[1], true
		}
		if !roots.MatchString(g) && !between.MatchString(g) {
			return "", "", false
		}
	}
	return "", "", false
}
