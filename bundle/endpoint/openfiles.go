package endpoint

import "syscall"

// usualOpenFiles is the usual default limit of open files of a process.
const usualOpenFiles = 1024

// OpenFiles returns the number of files, and so of connections, that this process can have open at a time. Each holder
// of connections uses a part of them.
func OpenFiles() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return usualOpenFiles
	}
	return int(min(files.Cur, 1<<30)) // or without bounds
}
