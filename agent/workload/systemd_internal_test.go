package workload

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
)

// cancelled returns a context that has ended.
func cancelled(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx, cancel
}

// manager answers as systemd does, for the process of the test alone.
type manager struct{}

func (manager) GetUnitByPID(pid uint32) (dbus.ObjectPath, *dbus.Error) {
	if int(pid) != os.Getpid() {
		return "", dbus.NewError(noUnitForPID, []any{"PID does not belong to any loaded unit."})
	}
	return "/org/freedesktop/systemd1/unit/web_2eservice", nil
}

// unit is a unit of it.
type unit struct{}

func (unit) Get(of, property string) (dbus.Variant, *dbus.Error) {
	values := map[string]string{"Id": "web.service", "FragmentPath": "/etc/systemd/system/web.service"}
	if of != systemdUnit || values[property] == "" {
		return dbus.Variant{}, dbus.NewError("org.freedesktop.DBus.Error.UnknownProperty", nil)
	}
	return dbus.MakeVariant(values[property]), nil
}

// bus runs a real D-Bus, on which this process serves the interface of systemd.
func bus(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "bus")
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--address=unix:path="+socket,
		"--print-address")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start(), "dbus-daemon is missing: install dbus")
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	address = strings.TrimSpace(address)
	conn, err := dbus.Connect(address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.Export(manager{}, systemdPath, systemdName+".Manager"))
	require.NoError(t, conn.Export(unit{}, "/org/freedesktop/systemd1/unit/web_2eservice",
		"org.freedesktop.DBus.Properties"))
	reply, err := conn.RequestName(systemdName, dbus.NameFlagDoNotQueue)
	require.NoError(t, err)
	require.Equal(t, dbus.RequestNameReplyPrimaryOwner, reply)
	return address
}

func TestSystemdSelectors(t *testing.T) {
	used := true
	s := &Systemd{
		Address: bus(t), Logger: hclog.NewNullLogger(),
		Uses: func(prefix string) bool { return used && prefix == "systemd:" },
	}
	own := Process{PID: int32(os.Getpid())} //nolint:gosec // a PID
	selectors, err := s.Attest(t.Context(), own)
	require.NoError(t, err)
	require.Equal(t, []string{"id:web.service", "fragment_path:/etc/systemd/system/web.service"}, selectors)
	selectors, err = s.Attest(t.Context(), Process{PID: 1})
	require.NoError(t, err)
	require.Empty(t, selectors, "a process in no unit")

	// A connection that has ended is opened again.
	require.NoError(t, s.conn.Close())
	selectors, err = s.Attest(t.Context(), own)
	require.NoError(t, err)
	require.Len(t, selectors, 2)
	used = false
	selectors, err = s.Attest(t.Context(), own)
	require.NoError(t, err)
	require.Empty(t, selectors, "no entry needs it")
	gone := &Systemd{Address: "unix:path=/nonexistent", Logger: hclog.NewNullLogger()}
	selectors, err = gone.Attest(t.Context(), own)
	require.NoError(t, err, "other selectors count without systemd")
	require.Empty(t, selectors)
}
