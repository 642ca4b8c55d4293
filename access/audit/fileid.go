package audit

import (
	"os"

	"golang.org/x/sys/unix"
)

// fileID distinguishes a file from others of its disk, also from one that gets its inode later. It is zero if the file
// system returns neither.
type fileID struct {
	inode uint64
	born  uint64 // ns since 1970; 0: the file system does not keep it
}

func identify(f *os.File) fileID {
	var s unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &s)
	if err != nil {
		return fileID{}
	}
	id := fileID{inode: s.Ino}
	if s.Mask&unix.STATX_BTIME != 0 {
		id.born = uint64(s.Btime.Sec)*1e9 + uint64(s.Btime.Nsec) //nolint:gosec // G115: it is compared, not counted
	}
	return id
}
