package logfile

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockRetry is how often a lock that another process holds is tried again; bbolt does it as often.
const lockRetry = 50 * time.Millisecond

// lock holds the lock that bbolt holds on an open file, so that the file does not change while it is verified.
func lock(path string) (unlock func() error, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockTimeout); ; {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		if time.Now().After(deadline) {
			err = errLocked(path)
			break
		}
		<-time.After(lockRetry)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil // which releases the lock
}
