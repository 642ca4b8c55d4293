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
)

// maxSocketPath is the longest path of a Unix socket on every system that is supported: the kernel's field, less
// its terminating zero.
const maxSocketPath = 103

// ListenSocket opens the admin socket: a Unix socket that only its owner can connect to, from its first moment on. A
// socket that a dead process left behind is replaced; one that still answers is not.
func ListenSocket(path string) (net.Listener, error) {
	l, err := listenSocket(path)
	if err != nil {
		return nil, fmt.Errorf("open the admin socket %s: %w", path, err)
	}
	return l, nil
}

func listenSocket(path string) (net.Listener, error) {
	if err := checkFree(path); err != nil {
		return nil, err
	}
	// The socket is made where nobody else can look, and moved to its place once its mode is set: bind alone would
	// leave a moment at which the umask decides who may connect.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // empty, or of a failed start
	hidden := filepath.Join(dir, "s")
	if len(hidden) > maxSocketPath || len(path) > maxSocketPath {
		return nil, fmt.Errorf("the path is too long for a Unix socket (%d bytes at most): choose a shorter data_dir", maxSocketPath)
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
		_ = l.Close() // it has served nobody
		return nil, err
	}
	return &socketListener{UnixListener: l, path: path, own: own}, nil
}

// checkFree refuses a path where something else is than the socket of a dead process.
func checkFree(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is something that is no socket: move it away")
	}
	const patience = time.Second // a process that lives accepts at once
	if c, err := net.DialTimeout("unix", path, patience); err == nil {
		_ = c.Close() // nothing was said
		return errors.New("another server answers there: stop it, or give this one a data_dir of its own")
	}
	return nil
}

// socketListener removes its socket when it is closed, unless another has taken its place.
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

// Addr is where the socket stands, not where it was made.
func (l *socketListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// SocketCredentials take the caller from the kernel. They let in root and the user that the server runs as, who could
// read its keys anyway, and nobody else.
func SocketCredentials() credentials.TransportCredentials {
	return socketCredentials{admits: func(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }}
}

type socketCredentials struct {
	admits func(uid uint32) bool
}

// socketInfo is what is known of a connection to the admin socket.
type socketInfo struct {
	credentials.CommonAuthInfo
	caller Caller
}

// AuthType names the kind of proof.
func (socketInfo) AuthType() string { return "unix-peer" }

// AccessCaller is the process on the other end.
func (i socketInfo) AccessCaller() Caller { return i.caller }

// ServerHandshake asks the kernel who connected. Nothing is exchanged.
func (s socketCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	unixConn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("the admin socket got a connection of type %T", c)
	}
	uid, pid, err := peerOf(unixConn)
	if err != nil {
		return nil, nil, fmt.Errorf("ask the kernel who is on the admin socket: %w", err)
	}
	if !s.admits(uid) {
		return nil, nil, fmt.Errorf("uid %d may not use the admin socket: only root and the server's own user may", uid)
	}
	return c, socketInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		caller:         SocketCaller(uid, pid),
	}, nil
}

// ClientHandshake is refused: these are a server's.
func (socketCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("the credentials of the admin socket are for its server")
}

// Info describes the credentials.
func (socketCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix-peer"}
}

// Clone returns the same: there is nothing to change in it.
func (s socketCredentials) Clone() credentials.TransportCredentials { return s }

// OverrideServerName has no meaning here.
func (socketCredentials) OverrideServerName(string) error { return nil }
