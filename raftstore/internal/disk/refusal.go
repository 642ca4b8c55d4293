package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrAbandoned means that the cluster was recovered without this member: what it has belongs to a history that ended.
var ErrAbandoned = errors.New("abandoned, because the cluster was recovered without this member")

// ErrRemoved means that this member was removed from the cluster.
var ErrRemoved = errors.New("that of a member that was removed from the cluster")

// refusals are the reasons for which a member does not start with its files, by the name of the file that records one.
var refusals = map[string]error{"refused": ErrDamaged, "abandoned": ErrAbandoned, "removed": ErrRemoved}

// refusal returns why a member must not start with the files in a folder, or nil.
func refusal(dir string) error {
	for name, kind := range refusals {
		reason, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			return fmt.Errorf("the state in %s is %w: %.1000q", dir, kind, reason)
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Refuse makes the member refuse to start with these files again: they are damaged, as reason describes.
func (s *Store) Refuse(reason string) error { return s.refuse("refused", reason) }

// Abandon makes the member refuse to start with these files again: the cluster was recovered without it, as reason
// describes.
func (s *Store) Abandon(reason string) error { return s.refuse("abandoned", reason) }

// Remove makes the member refuse to start with these files again: it was removed from the cluster, as reason describes.
func (s *Store) Remove(reason string) error { return s.refuse("removed", reason) }

func (s *Store) refuse(name, reason string) error {
	if s.dir == "" {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(reason)
	return errors.Join(err, f.Sync(), f.Close(), syncFolder(s.dir))
}
