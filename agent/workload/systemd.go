package workload

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/hashicorp/go-hclog"
)

// Systemd is the attestor of the units of systemd, which it finds by the D-Bus. Its selectors are id, the name of the
// unit, and fragment_path, the file that it was loaded from. A process in no unit has none.
type Systemd struct {
	// Uses reports whether an entry has a selector with a prefix. Without one, systemd is not called. If nil, it always
	// is.
	Uses func(prefix string) bool
	// Address is that of the D-Bus. If empty, it is the system's.
	Address string
	Logger  hclog.Logger

	mu   sync.Mutex
	conn *dbus.Conn
}

const (
	systemdName  = "org.freedesktop.systemd1"
	systemdPath  = "/org/freedesktop/systemd1"
	systemdUnit  = systemdName + ".Unit"
	systemdCall  = 5 * time.Second
	noUnitForPID = systemdName + ".NoUnitForPID"
)

// Type implements [Attestor].
func (*Systemd) Type() string { return "systemd" }

// Attest implements [Attestor]. While systemd does not answer, a workload has none of these selectors.
func (s *Systemd) Attest(ctx context.Context, p Process) ([]string, error) {
	if s.Uses != nil && !s.Uses("systemd:") {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, systemdCall)
	defer cancel()
	selectors, err := s.unit(ctx, p.PID)
	if err != nil {
		s.Logger.Warn("the systemd unit of a workload is not known", "pid", p.PID, "uid", p.UID, "error", err)
		return nil, nil
	}
	return selectors, nil
}

func (s *Systemd) unit(ctx context.Context, pid int32) (selectors []string, err error) {
	conn, err := s.connected()
	if err != nil {
		return nil, err
	}
	var path dbus.ObjectPath
	manager := conn.Object(systemdName, systemdPath)
	number := uint32(pid) //nolint:gosec // a PID is positive
	err = manager.CallWithContext(ctx, systemdName+".Manager.GetUnitByPID", 0, number).Store(&path)
	var failed dbus.Error
	if errors.As(err, &failed) && failed.Name == noUnitForPID {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, property := range []struct{ selector, name string }{{"id", "Id"}, {"fragment_path", "FragmentPath"}} {
		var value dbus.Variant
		err := conn.Object(systemdName, path).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0,
			systemdUnit, property.name).Store(&value)
		if err != nil {
			return nil, err
		}
		if text, ok := value.Value().(string); ok && text != "" {
			selectors = append(selectors, property.selector+":"+text)
		}
	}
	return selectors, nil
}

// connected returns the connection to the D-Bus, which is opened again when it has ended.
func (s *Systemd) connected() (*dbus.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && s.conn.Connected() {
		return s.conn, nil
	}
	var err error
	if s.Address == "" {
		s.conn, err = dbus.ConnectSystemBus()
	} else {
		s.conn, err = dbus.Connect(s.Address)
	}
	return s.conn, err
}
