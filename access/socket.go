package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/ententehq/entente/internal/secretdir"
)

// maxSocketPath is the longest path of a Unix socket on every supported system: the size of the kernel's field minus
// the terminating zero.
const maxSocketPath = 103

// ListenSocket opens the admin socket: a Unix socket that at no moment anybody but its owner can connect to, in
// a folder that others can neither reach nor replace it in. It replaces a socket that a dead process left behind, but
// not one that still accepts connections.
func ListenSocket(path string) (net.Listener, error) {
	l, err := listenSocket(path)
	if err != nil {
		return nil, fmt.Errorf("open the admin socket %s: %w", path, err)
	}
	return l, nil
}

func listenSocket(path string) (net.Listener, error) {
	if err := secretdir.Check("folder of the socket", filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := checkFree(path); err != nil {
		return nil, err
	}
	// The socket is created in a private folder, and moved to its place once its mode is set. With bind alone, the
	// umask would decide for a moment who may connect.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // it is empty, or the socket was not opened
	hidden := filepath.Join(dir, "s")
	if len(hidden) > maxSocketPath || len(path) > maxSocketPath {
		return nil, fmt.Errorf("the path is too long for a Unix socket (%d bytes at most): choose a shorter data_dir",
			maxSocketPath)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(hidden, 0o600)
	var own fs.FileInfo
	if err == nil {
		own, err = os.Lstat(hidden)
	}
	if err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		_ = l.Close() // it has accepted no connection
		return nil, err
	}
	return &socketListener{UnixListener: l, path: path, own: own}, nil
}

// checkFree returns an error if path holds anything but the socket of a dead process.
func checkFree(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is something that is not a socket: move it away")
	}
	const timeout = time.Second // a live process accepts at once
	if c, err := net.DialTimeout("unix", path, timeout); err == nil {
		_ = c.Close() // nothing was sent
		return errors.New("another server answers there: stop it, or give this one a data_dir of its own")
	}
	return nil
}

// socketListener removes its socket when it is closed, unless another socket has taken its place.
type socketListener struct {
	*net.UnixListener
	path string
	own  fs.FileInfo
	once sync.Once
}

// Close stops listening and removes the socket.
func (l *socketListener) Close() error {
	err := l.UnixListener.Close()
	l.once.Do(func() {
		if now, e := os.Lstat(l.path); e == nil && os.SameFile(now, l.own) {
			err = errors.Join(err, os.Remove(l.path))
		}
	})
	return err
}

// Addr returns the path of the socket, not the one where it was created.
func (l *socketListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// SocketCredentials returns server credentials that get the caller from the kernel. They admit root and the server's
// own user, who can read its keys anyway, and refuse every other user.
func SocketCredentials() credentials.TransportCredentials {
	return socketCredentials{admits: func(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }}
}

type socketCredentials struct {
	admits func(uid uint32) bool
}

// socketInfo identifies the process on the other end of a connection to the admin socket.
type socketInfo struct {
	credentials.CommonAuthInfo
	caller Caller
}

// AuthType implements [credentials.AuthInfo].
func (socketInfo) AuthType() string { return "unix-peer" }

// AccessCaller implements [Identified].
func (i socketInfo) AccessCaller() Caller { return i.caller }

// ServerHandshake gets the process that connected from the kernel. It exchanges no data.
func (s socketCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	unixConn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("the admin socket accepted a connection of type %T", c)
	}
	uid, pid, err := peerOf(unixConn)
	if err != nil {
		return nil, nil, fmt.Errorf("get the process on the admin socket from the kernel: %w", err)
	}
	if !s.admits(uid) {
		return nil, nil, fmt.Errorf("uid %d may not use the admin socket: only root and the server's own user may", uid)
	}
	return c, socketInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		caller:         SocketCaller(uid, pid),
	}, nil
}

// ClientHandshake returns an error: the credentials are for a server.
func (socketCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("the credentials of the admin socket are for its server")
}

// Info implements [credentials.TransportCredentials].
func (socketCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix-peer"}
}

// Clone returns the receiver, which is immutable.
func (s socketCredentials) Clone() credentials.TransportCredentials { return s }

// OverrideServerName does nothing.
func (socketCredentials) OverrideServerName(string) error { return nil }
