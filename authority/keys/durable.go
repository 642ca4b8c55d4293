package keys

import (
	"errors"
	"os"
	"path/filepath"
)

// UnfinishedPrefix begins the names of files that [WriteDurably] has not completed.
const UnfinishedPrefix = ".new-"

// WriteDurably replaces a file with mode 0600 in one step, and returns when its content and name are on disk. It is for
// files that belong to a key.
func WriteDurably(dir, name string, content []byte) (err error) {
	file, err := os.CreateTemp(dir, UnfinishedPrefix+"*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	if _, err = file.Write(content); err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err = os.Rename(file.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return SyncFolder(dir)
}

// SyncFolder returns when the names in a folder are on disk.
func SyncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
