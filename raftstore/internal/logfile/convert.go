package logfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// OldName is the name of the log file of earlier versions, in the format of raft-boltdb.
const OldName = "raft.db"

// oldKeys are the records that earlier versions have in the stable store: Raft's and that of the member's starts.
var oldKeys = []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand", "entente.incarnation"}

// convertBatch is how many entries one transaction of the conversion has.
const convertBatch = 512

// prepare creates the files if a folder has none, and converts those of an earlier version. The log file comes into
// being in full or not at all, after the file with its end; only then the old one is removed.
func prepare(dir string) error {
	path, endPath := filepath.Join(dir, Name), filepath.Join(dir, EndName)
	oldPath := filepath.Join(dir, OldName)
	present, err := exists(path)
	if err != nil {
		return err
	}
	old, err := exists(oldPath)
	switch {
	case err != nil:
		return err
	case present && old:
		return os.Remove(oldPath) // the conversion was complete
	case present:
		return nil
	}
	if !old {
		end, err := openEnd(endPath)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return err
		default:
			empty := end.end.Last == 0 && end.end.Snapshot == 0
			if err := end.close(); err != nil {
				return err
			}
			if !empty {
				return damaged(path, "it is missing, and %s is there", endPath)
			}
		}
	}
	temporary := path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	end, err := create(temporary, oldPath, old)
	if err != nil {
		return err
	}
	if err := createEnd(endPath, end); err != nil {
		return fmt.Errorf("create %s: %w", endPath, err)
	}
	if err := rename(temporary, path); err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	if old {
		return os.Remove(oldPath)
	}
	return nil
}

// create creates a log file, with the content of an old one if there is one.
func create(path, oldPath string, old bool) (End, error) {
	db, err := openBolt(path)
	if err != nil {
		return End{}, err
	}
	f := &File{path: path, db: db}
	var txid uint64
	err = db.Update(func(tx *bbolt.Tx) error {
		txid = uint64(tx.ID())
		_, err := tx.CreateBucket(entriesBucket)
		_, err2 := tx.CreateBucket(stableBucket)
		return errors.Join(err, err2)
	})
	var found span
	if err == nil && old {
		f.txid = txid
		found, txid, err = copyOld(oldPath, f)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return End{}, err
	}
	return End{Transaction: txid, First: found.first, Last: found.last}, nil
}

// copyOld copies an old log file. Its records have no checksums: what can be checked is that its pages are in order,
// that they decode, and that the entries have no gap.
func copyOld(oldPath string, to *File) (found span, txid uint64, err error) {
	to.end = &endFile{path: os.DevNull}
	if to.end.file, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
		return found, 0, err
	}
	defer to.end.file.Close()
	if err := verifyOld(oldPath); err != nil {
		return found, 0, err
	}
	_, err = guarded(oldPath, func() error {
		old, err := raftboltdb.New(raftboltdb.Options{
			Path: oldPath, BoltOptions: &bbolt.Options{Timeout: lockTimeout, ReadOnly: true},
		})
		if err != nil {
			return fmt.Errorf("open the log %s of an earlier version: %w", oldPath, err)
		}
		err = errors.Join(copyStable(old, to), copyEntries(old, oldPath, to))
		return errors.Join(err, old.Close())
	})
	return to.span, to.txid, err
}

func copyStable(old *raftboltdb.BoltStore, to *File) error {
	for _, key := range oldKeys {
		value, err := old.Get([]byte(key))
		if errors.Is(err, raftboltdb.ErrKeyNotFound) {
			continue
		}
		if err == nil {
			err = to.Set([]byte(key), value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyEntries copies the entries after the last gap: those before one were superseded by a snapshot.
func copyEntries(old *raftboltdb.BoltStore, oldPath string, to *File) error {
	first, err := old.FirstIndex()
	if err != nil {
		return err
	}
	last, err := old.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	var batch []*raft.Log
	for index := first; index <= last; index++ {
		l := &raft.Log{}
		err := old.GetLog(index, l)
		switch {
		case errors.Is(err, raft.ErrLogNotFound):
			batch = nil
			if err := to.DeleteRange(0, index); err != nil {
				return err
			}
			continue
		case err != nil:
			return damaged(oldPath, "the entry %d: %s", index, err)
		case l.Index != index:
			return damaged(oldPath, "the entry %d is stored as %d", l.Index, index)
		}
		if batch = append(batch, l); len(batch) == convertBatch || index == last {
			if err := to.StoreLogs(batch); err != nil {
				return err
			}
			batch = nil
		}
	}
	return nil
}

func verifyOld(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	p := &pages{file: file, size: uint64(info.Size()), visit: func(string, []byte, []byte) error { return nil }}
	if _, _, err := p.check(); err != nil {
		return damaged(path, "%s", err)
	}
	return nil
}
