package audit_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access/audit"
)

// record opens a log, records events, and closes it.
func record(t *testing.T, path string, actions ...string) {
	t.Helper()
	l, err := audit.Open(audit.Config{Path: path, Member: "eu-1"})
	require.NoError(t, err)
	for _, action := range actions {
		require.NoError(t, l.Record(audit.Event{Caller: "c", Action: action, Result: audit.ResultDone}))
	}
	require.NoError(t, l.Close())
}

func TestVerify(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	old := `{"time":"2026-08-01T12:00:00Z","member":"eu-1","caller":"c","action":"old","result":"done"}` + "\n"
	require.NoError(t, os.WriteFile(path, []byte(old), 0o600))
	record(t, path, "one", "two")
	record(t, path, "three")
	rotated := path + ".1"
	require.NoError(t, os.Rename(path, rotated))
	record(t, path, "four", "five")

	v, err := audit.Verify(rotated, path)
	require.NoError(t, err)
	require.Equal(t, audit.Verified{Lines: 5, Unchained: 1}, v)
	v, err = audit.Verify(path)
	require.NoError(t, err, "the first line may continue a file that is not there")
	require.Equal(t, audit.Verified{Lines: 2}, v)

	written, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := bytes.SplitAfter(written, []byte("\n"))
	for name, c := range map[string]struct{ content, want string }{
		"a line is missing": {string(lines[1]), path + ": line 1 does not follow the line before it: one of them was " +
			"changed, or lines between them are missing"},
		"the last line is missing": {string(lines[0]), path + " does not have the line that was written last: lines " +
			"at its end are missing"},
		"all are missing": {"", path + " does not have the line that was written last: lines at its end are missing"},
		"the last line is cut off": {string(written[:len(written)-9]), path + ": line 2 is not one that was written: " +
			"it was changed or cut off"},
	} {
		require.NoError(t, os.WriteFile(path, []byte(c.content), 0o600))
		_, err := audit.Verify(rotated, path)
		require.EqualError(t, err, c.want, name)
	}
	fragment := fmt.Sprintf("%s%s\n%s", lines[0], lines[1][:40], lines[1])
	require.NoError(t, os.WriteFile(path, []byte(fragment), 0o600))
	v, err = audit.Verify(rotated, path)
	require.NoError(t, err, "a full disk cut off a line, whose event was refused")
	require.Equal(t, audit.Verified{Lines: 5, Unchained: 1, Fragments: 1}, v)

	require.NoError(t, os.WriteFile(path, written, 0o600))
	for bit := range 8 * len(written) {
		damaged := bytes.Clone(written)
		damaged[bit/8] ^= 1 << (bit % 8)
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		_, err := audit.Verify(rotated, path)
		require.Error(t, err, "bit %d", bit)
		require.NotContains(t, err.Error(), "\n")
	}
	require.NoError(t, os.WriteFile(path, written, 0o600))
	require.NoError(t, os.Truncate(path+audit.EndSuffix, 3))
	_, err = audit.Verify(rotated, path)
	require.EqualError(t, err, path+".end is damaged: its checksum does not match")
	require.NoError(t, os.Remove(path+audit.EndSuffix))
	_, err = audit.Verify(rotated, path)
	require.ErrorContains(t, err, path+".end is missing")
}

// TestDamageOfTheFirstLines damages the file of a chain that begins in it, behind a line without a chain or without
// one: a damaged first line is not taken for one of an earlier version. A member that continues a log whose end is
// missing notices that, or leaves a line that does not follow the one before.
func TestDamageOfTheFirstLines(t *testing.T) {
	old := `{"time":"2026-08-01T12:00:00Z","member":"eu-1","caller":"c","action":"old","result":"done"}` + "\n"
	for name, before := range map[string]string{"a new log": "", "a log of an earlier version": old} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.log")
			require.NoError(t, os.WriteFile(path, []byte(before), 0o600))
			record(t, path, "one", "two")
			written, err := os.ReadFile(path)
			require.NoError(t, err)
			end, err := os.ReadFile(path + audit.EndSuffix)
			require.NoError(t, err)
			for bit := 8 * len(before); bit < 8*len(written); bit++ {
				content := bytes.Clone(written)
				content[bit/8] ^= 1 << (bit % 8)
				require.NoError(t, os.WriteFile(path, content, 0o600))
				_, err := audit.Verify(path)
				require.Error(t, err, "bit %d: %s", bit, content)
			}
			first := len(before) + bytes.IndexByte(written[len(before):], '\n')
			for _, length := range []int{len(before) + 1, first - 1, first, first + 2, len(written) - 2} {
				require.NoError(t, os.WriteFile(path, written[:length], 0o600))
				require.NoError(t, os.WriteFile(path+audit.EndSuffix, end, 0o600))
				var logged bytes.Buffer
				l, err := audit.Open(audit.Config{
					Path: path, Member: "eu-1", Logger: hclog.New(&hclog.LoggerOptions{Output: &logged}),
				})
				require.NoError(t, err)
				require.NoError(t, l.Record(audit.Event{Caller: "c", Action: "three", Result: audit.ResultDone}))
				require.NoError(t, l.Close())
				if _, err = audit.Verify(path); err == nil {
					require.Contains(t, logged.String(), "the audit log is damaged", "cut to %d", length)
				}
			}
			require.NoError(t, os.WriteFile(path, written, 0o600))
			require.NoError(t, os.WriteFile(path+audit.EndSuffix, end, 0o600))
			record(t, path, "three")
			_, err = audit.Verify(path)
			require.NoError(t, err)
		})
	}
}

// TestCutToNothing: a log that had lines and has none is noticed when it is opened, whatever is left of its first line.
// A log that was rotated is no such log, also if a stopped member's was, and its successor has no line yet.
func TestCutToNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	opened := func() string {
		var out bytes.Buffer
		l, err := audit.Open(audit.Config{
			Path: path, Member: "eu-1", Logger: hclog.New(&hclog.LoggerOptions{Output: &out}),
		})
		require.NoError(t, err)
		require.NoError(t, l.Close())
		return out.String()
	}
	require.Empty(t, opened(), "a new log")
	require.Empty(t, opened(), "one without a line")
	record(t, path, "one", "two")
	require.Empty(t, opened())
	for _, left := range []int64{10, 0} {
		require.NoError(t, os.Truncate(path, left))
		require.Contains(t, opened(), "the audit log is damaged; the member continues it")
		require.Contains(t, opened(), "it had lines and has none: they are missing", "it is reported at each start")
	}
	_, err := audit.Verify(path)
	require.ErrorContains(t, err, "does not have the line that was written last")
	record(t, path, "three")
	require.Empty(t, opened(), "it is continued")
	v, err := audit.Verify(path)
	require.NoError(t, err)
	require.Equal(t, 1, v.Lines)

	require.NoError(t, os.Rename(path, path+".1"))
	require.Empty(t, opened(), "it was rotated")
	require.Empty(t, opened(), "and has no line yet")
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.Empty(t, opened(), "the same, of a file that may have the inode of another")
	record(t, path, "four")
	v, err = audit.Verify(path+".1", path)
	require.NoError(t, err)
	require.Equal(t, 2, v.Lines)
}

// TestEndOfEarlierBuilds: the end of a log that an earlier build wrote is read, and names no file.
func TestEndOfEarlierBuilds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	record(t, path, "one")
	raw, err := os.ReadFile(path + audit.EndSuffix)
	require.NoError(t, err)
	sum := sha256.Sum256(raw[:32])
	require.NoError(t, os.WriteFile(path+audit.EndSuffix, append(raw[:32:32], sum[:8]...), 0o600))
	v, err := audit.Verify(path)
	require.NoError(t, err)
	require.Equal(t, 1, v.Lines)
	record(t, path, "two")
	v, err = audit.Verify(path)
	require.NoError(t, err)
	require.Equal(t, 2, v.Lines)
}
