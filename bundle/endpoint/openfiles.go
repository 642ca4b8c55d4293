package endpoint

import "syscall"

// usualOpenFiles is what a system lets a process have open that was told nothing.
const usualOpenFiles = 1024

// OpenFiles is how many files, and so connections, this process can have open at a time. What keeps connections takes a
// part of them.
func OpenFiles() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return usualOpenFiles
	}
	return int(min(files.Cur, 1<<30)) // or without bounds
}
