package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

// rolling is a workload whose SVID and bundle are replaced while it runs.
type rolling struct {
	mu     sync.RWMutex
	svid   *x509svid.SVID
	bundle *spiffebundle.Bundle
}

func (r *rolling) GetX509SVID() (*x509svid.SVID, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.svid, nil
}

func (r *rolling) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.bundle.GetX509BundleForTrustDomain(td)
}

func (r *rolling) set(svid *x509svid.SVID, bundle *spiffebundle.Bundle) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if svid != nil {
		r.svid = svid
	}
	if bundle != nil {
		r.bundle = bundle
	}
}

// pair is two workloads that connect to each other without end. The server reads the bundle at the endpoint, at the
// pace of its hint; the client follows it over the API. Both renew their SVIDs all the time.
type pair struct {
	mu         sync.Mutex
	handshakes int
	failed     []string
	// serverTop and clientTop are what the last handshake verified the two by.
	serverTop, clientTop *x509.Certificate
}

func (p *pair) note(server, client *x509.Certificate, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handshakes++
	if err != nil {
		p.failed = append(p.failed, err.Error())
		return
	}
	p.serverTop, p.clientTop = server, client
}

func newPair(t *testing.T, m *process, domain string) *pair {
	t.Helper()
	td := spiffeid.RequireTrustDomainFromString(domain)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	every := func(d time.Duration, do func() error) {
		running.Go(func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					if err := do(); err != nil && ctx.Err() == nil {
						t.Errorf("a workload: %v", err)
					}
				}
			}
		})
	}
	server, client := &rolling{}, &rolling{}
	for workload, name := range map[*rolling]string{server: "server", client: "client"} {
		first := issue(t, m, "spiffe://"+domain+"/"+name)
		workload.set(first.svid, first.bundle)
		every(200*time.Millisecond, func() error {
			next, err := tryIssue(t, m, "spiffe://"+domain+"/"+name)
			if err == nil {
				workload.set(next.svid, nil)
			}
			return err
		})
	}
	every(time.Second, func() error {
		text, err := m.document("/")
		if err != nil {
			return err
		}
		b, err := spiffebundle.Parse(td, []byte(text))
		server.set(nil, b)
		return err
	})
	watch, err := m.socket().Bundles().WatchBundles(ctx, &ententev1.WatchBundlesRequest{TrustDomains: []string{domain}})
	require.NoError(t, err)
	running.Go(func() {
		for {
			news, err := watch.Recv()
			if err != nil {
				return
			}
			for _, b := range news.GetChanged() {
				if parsed, err := spiffebundle.Parse(td, b.GetDocument()); err == nil {
					client.set(nil, parsed)
				}
			}
		}
	})
	listener, err := tls.Listen(
		"tcp", "127.0.0.1:0", tlsconfig.MTLSServerConfig(server, server, tlsconfig.AuthorizeAny()),
	)
	require.NoError(t, err)
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				_, _ = conn.Write([]byte{1}) // which it does once it has verified the client
			})
		}
	})
	p := &pair{}
	every(20*time.Millisecond, func() error {
		p.note(connect(client, server, listener.Addr().String()))
		return nil
	})
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		running.Wait()
	})
	return p
}

// connect makes one handshake, waits until the server has accepted it, and returns the anchors by which both were
// verified.
func connect(client, server *rolling, address string) (serverTop, clientTop *x509.Certificate, err error) {
	own, err := client.GetX509SVID()
	if err != nil {
		return nil, nil, err
	}
	config := tlsconfig.MTLSClientConfig(client, client, tlsconfig.AuthorizeAny())
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return nil, nil, fmt.Errorf("the client: %w", err)
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return nil, nil, fmt.Errorf("the server: %w", err)
	}
	_, chains, err := x509svid.Verify(conn.ConnectionState().PeerCertificates, client)
	if err != nil {
		return nil, nil, err
	}
	_, theirs, err := x509svid.Verify(own.Certificates, server)
	if err != nil {
		return nil, nil, err
	}
	return chains[0][len(chains[0])-1], theirs[0][len(theirs[0])-1], nil
}

// TestNoHandshakeBreaksWhileARootIsReplaced replaces the root in Vault under workloads that connect all the time, once
// by one that nothing connects with the old one, once by one that the old one has signed too.
func TestNoHandshakeBreaksWhileARootIsReplaced(t *testing.T) {
	v := vaulttest.Start(t)
	for name, next := range map[string]func(mount string) string{
		"a fresh root":        func(mount string) string { return v.Root(t, mount, "root-2") },
		"a cross-signed root": func(mount string) string { return v.CrossSigned(t, mount, "root-2", "root-1") },
	} {
		t.Run(name, func(t *testing.T) {
			mount := v.EmptyPKI(t)
			v.Root(t, mount, "root-1")
			c := newCluster(t, "eu", 1, belowVault(t, v, mount, "eu.example.org"))
			p := newPair(t, c.members[0], c.domain)
			root := parsePEM(t, next(mount))
			v.SetDefault(t, mount, "root-2")
			_, err := c.members[0].socket().
				Authorities().
				RotateAuthorities(t.Context(), &ententev1.RotateAuthoritiesRequest{})
			require.NoError(t, err)
			eventually(t, "both workloads are verified by the new root", func() error {
				p.mu.Lock()
				defer p.mu.Unlock()
				if p.serverTop == nil || !p.serverTop.Equal(root) || p.clientTop == nil || !p.clientTop.Equal(root) {
					return fmt.Errorf("after %d handshakes it is another", p.handshakes)
				}
				return nil
			})
			p.mu.Lock()
			defer p.mu.Unlock()
			require.Empty(t, p.failed, "of %d handshakes", p.handshakes)
			require.Greater(t, p.handshakes, 20)
		})
	}
}
