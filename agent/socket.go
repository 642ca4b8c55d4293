package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// listenWorkloads opens the socket of the workloads. Every user can connect to it, and only the agent can write in its
// folder, so that nobody else can put another socket in its place.
func listenWorkloads(path string) (net.Listener, error) { return listenUnix(path, 0o755, 0o777) }

// listenUnix opens a Unix socket. It makes the folder, and replaces a socket that nobody listens on.
func listenUnix(path string, folder, mode os.FileMode) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, folder); err != nil {
		return nil, fmt.Errorf("make the folder of the socket: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("the folder of the socket: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("other users can write in %s (mode %o), and so put a socket of their own in the "+
			"place of "+
			"the agent's: take that away with chmod go-w, or choose another folder", dir, info.Mode().Perm())
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = conn.Close() // it was opened to look
		return nil, fmt.Errorf("another process listens on %s: stop it, or choose another socket", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of an earlier agent: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("the mode of %s: %w", path, err), l.Close())
	}
	return l, nil
}

// listenAdmin opens the admin socket, and the address for HTTP if there is one.
func (a *agent) listenAdmin() ([]net.Listener, error) {
	l, err := listenUnix(a.cfg.AdminSocket, 0o700, 0o600)
	if err != nil {
		return nil, err
	}
	if a.cfg.Listen == "" {
		return []net.Listener{l}, nil
	}
	tcp, err := net.Listen("tcp", a.cfg.Listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for metrics: %w: choose another address for listen", err), l.Close())
	}
	return []net.Listener{l, tcp}, nil
}

// serveAdmin serves health and metrics until ctx ends.
func (a *agent) serveAdmin(ctx context.Context, listeners []net.Listener) error {
	s := &http.Server{
		Handler: a.metrics.handler(), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: a.log.StandardLogger(nil),
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		return s.Close()
	})
	return group.Wait()
}
