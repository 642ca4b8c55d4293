package publish_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle/publish"
)

func open(t *testing.T, dir string) *publish.Folder {
	t.Helper()
	f, err := publish.OpenFolder(dir, true)
	require.NoError(t, err)
	return f
}

func object(name, body string) publish.Object {
	return publish.Object{Name: name, Body: []byte(body)}
}

// visible returns the files of a folder by name, without those that begin with a dot.
func visible(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	all := map[string]string{}
	for _, e := range entries {
		if e.Name()[0] != '.' {
			body, err := os.ReadFile(filepath.Join(dir, e.Name()))
			require.NoError(t, err)
			all[e.Name()] = string(body)
		}
	}
	return all
}

func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	f := open(t, dir)
	change, err := f.Write([]publish.Object{object("a.pem", "1"), object("b.pem", "2")})
	require.NoError(t, err)
	require.Equal(t, publish.Change{Written: []string{"a.pem", "b.pem"}}, change)
	require.True(t, f.Unannounced())
	require.NoError(t, f.Announced())
	before, err := os.Stat(filepath.Join(dir, "b.pem"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), before.Mode().Perm())

	// Changed bytes alone are written, and what is not wanted any more is removed.
	change, err = f.Write([]publish.Object{object("b.pem", "2"), object("c.pem", "3")})
	require.NoError(t, err)
	require.Equal(t, publish.Change{Written: []string{"c.pem"}, Removed: []string{"a.pem"}}, change)
	require.Equal(t, map[string]string{"b.pem": "2", "c.pem": "3"}, visible(t, dir))
	after, err := os.Stat(filepath.Join(dir, "b.pem"))
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "an unchanged file is not replaced")
	require.True(t, f.Unannounced())

	// An unchanged write changes nothing, the manifest included.
	manifest, err := os.Stat(filepath.Join(dir, ".entente-manifest.json"))
	require.NoError(t, err)
	change, err = f.Write([]publish.Object{object("b.pem", "2"), object("c.pem", "3")})
	require.NoError(t, err)
	require.True(t, change.Empty())
	again, err := os.Stat(filepath.Join(dir, ".entente-manifest.json"))
	require.NoError(t, err)
	require.True(t, os.SameFile(manifest, again))

	// A file that was changed or removed behind its back is written again.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b.pem"), []byte("forged"), 0o600))
	require.NoError(t, os.Remove(filepath.Join(dir, "c.pem")))
	change, err = f.Write([]publish.Object{object("b.pem", "2"), object("c.pem", "3")})
	require.NoError(t, err)
	require.Equal(t, []string{"b.pem", "c.pem"}, change.Written)

	// The next process knows what this one wrote, and that no reader was told.
	require.NoError(t, f.Close())
	f = open(t, dir)
	require.True(t, f.Unannounced())
	change, err = f.Write(nil)
	require.NoError(t, err)
	require.Equal(t, []string{"b.pem", "c.pem"}, change.Removed)
	require.Empty(t, visible(t, dir))
	require.NoError(t, f.Close())
}

// TestFolderKeepsForeignFiles: what somebody else put there is neither replaced nor removed, and delays no other file.
func TestFolderKeepsForeignFiles(t *testing.T) {
	dir := t.TempDir()
	for name, body := range map[string]string{"a.pem": "theirs", "note.txt": "theirs"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600))
	}
	f := open(t, dir)
	change, err := f.Write([]publish.Object{object("a.pem", "ours"), object("b.pem", "ours")})
	require.ErrorIs(t, err, publish.ErrForeignFile)
	require.EqualError(t, err, filepath.Join(dir, "a.pem")+": the file exists and was not written by Entente; remove "+
		"it, or use another folder")
	require.Equal(t, []string{"b.pem"}, change.Written)
	_, err = f.Write(nil)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a.pem": "theirs", "note.txt": "theirs"}, visible(t, dir))
	require.NoError(t, f.Close())
}

// TestFolderOfOneProcess: two processes would undo what the other one writes.
func TestFolderOfOneProcess(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	_, err := publish.OpenFolder(dir, false)
	require.EqualError(t, err, "another process writes bundles into "+dir+"; give each a folder of its own")
	require.NoError(t, f.Close())
	require.NoError(t, open(t, dir).Close())
}

// TestFolderAfterAKill: the manifest is on disk before the files, and a file that was half written is removed.
func TestFolderAfterAKill(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	_, err := f.Write([]publish.Object{object("a.pem", "1")})
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".entente-temp-X"), []byte("half"), 0o600))
	require.NoError(t, os.Remove(filepath.Join(dir, "a.pem"))) // as if killed after the manifest
	f = open(t, dir)
	require.NoFileExists(t, filepath.Join(dir, ".entente-temp-X"))
	change, err := f.Write([]publish.Object{object("a.pem", "1")})
	require.NoError(t, err)
	require.Equal(t, []string{"a.pem"}, change.Written)
	require.NoError(t, f.Close())
}

// TestFolderRefusesAForgedManifest: it would remove files of others.
func TestFolderRefusesAForgedManifest(t *testing.T) {
	for _, text := range []string{
		`{"files":["../a.pem"]}`, `{"files":["/etc/ssl/a.pem"]}`, `{"files":[".hidden.pem"]}`, `{"files":["id_rsa"]}`,
		`{`,
	} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, ".entente-manifest.json"), []byte(text), 0o600))
		_, err := publish.OpenFolder(dir, false)
		require.ErrorContains(t, err, "the manifest "+dir+"/.entente-manifest.json cannot be used (", text)
	}
}

// TestFolderNamesWhatFails: a file that cannot be removed stays in the manifest, and is removed later.
func TestFolderNamesWhatFails(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	_, err := f.Write([]publish.Object{object("a.pem", "1")})
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, "a.pem")))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a.pem", "full"), 0o700))
	_, err = f.Write(nil)
	require.EqualError(t, err, "remove "+dir+"/a.pem: directory not empty")
	require.NoError(t, os.Remove(filepath.Join(dir, "a.pem", "full")))
	change, err := f.Write(nil)
	require.NoError(t, err)
	require.Equal(t, []string{"a.pem"}, change.Removed)
	require.NoError(t, f.Close())
}
