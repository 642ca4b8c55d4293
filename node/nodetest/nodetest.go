// Package nodetest runs a member in the process of a test, for packages that need a real one: the client, its examples.
package nodetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node"
	"github.com/ententehq/entente/node/config"
)

const (
	startTimeout = time.Minute // far longer than an election takes on a busy machine
	pollInterval = 20 * time.Millisecond
)

// Member is a cluster of one member, in the region "local".
type Member struct {
	// Address is HOST:PORT of the cluster port.
	Address string
	// BundleEndpoint is HOST:PORT of the bundle endpoint.
	BundleEndpoint string
	// Socket is the path of the admin socket.
	Socket string

	dir   string
	stop  context.CancelFunc
	ended chan error
	log   *log
}

// Start starts a member with the home trust domain dev.example.org, self-signed authorities and its data in a temporary
// folder. It returns when the member leads and can issue SVIDs.
func Start() (*Member, error) {
	return StartIn(spiffeid.RequireTrustDomainFromString("dev.example.org"))
}

// StartIn is Start with another home trust domain, and a configuration that functions adjust.
func StartIn(home spiffeid.TrustDomain, adjust ...func(*config.Config)) (*Member, error) {
	dir, err := os.MkdirTemp("", "nodetest-") // short, since the path of a socket has at most 107 bytes
	if err != nil {
		return nil, err
	}
	m := &Member{dir: dir, Socket: filepath.Join(dir, node.SocketName), ended: make(chan error, 1), log: &log{}}
	if err := m.start(home, adjust); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return m, nil
}

func (m *Member) start(home spiffeid.TrustDomain, adjust []func(*config.Config)) error {
	cfg, err := config.Dev(m.dir, config.DefaultAddresses())
	if err != nil {
		return err
	}
	cfg.Cluster.TrustDomain = home
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	m.Address, m.BundleEndpoint = ports[0], ports[1]
	cfg.Member.Listen, cfg.Member.Advertise = ports[0], ports[0]
	cfg.BundleEndpoint.Listen, cfg.Telemetry.Listen = ports[1], ports[2]
	for _, f := range adjust {
		f(cfg)
	}
	started := make(chan struct{})
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	go func() {
		m.ended <- node.Run(ctx, cfg, node.Options{
			Bootstrap: true, LogOutput: m.log, Started: func() { close(started) },
		})
	}()
	select {
	case <-started:
		return m.awaitAuthorities()
	case err := <-m.ended:
		stop()
		return fmt.Errorf("the member did not start: %w\n%s", err, m.log)
	}
}

// awaitAuthorities waits until an X.509 and a JWT authority of the home trust domain are active.
func (m *Member) awaitAuthorities() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	conn, err := grpc.NewClient("unix:"+m.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	authorities := ententev1.NewAuthorityServiceClient(conn)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		list, err := authorities.ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{})
		active := map[ententev1.AuthorityKind]bool{}
		for _, a := range list.GetAuthorities() {
			if a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE {
				active[a.GetKind()] = true
			}
		}
		if len(active) == 2 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the member has no active authorities: %w\n%s", err, m.log), m.Close())
		}
	}
}

// Close stops the member and removes its data.
func (m *Member) Close() error {
	m.stop()
	return errors.Join(<-m.ended, os.RemoveAll(m.dir))
}

// freePorts returns addresses on which no process listens at the moment.
func freePorts(n int) (addresses []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// log keeps what the member logs, for an error.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// String returns the log.
func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
