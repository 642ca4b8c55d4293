package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/clocktest"
)

// issuer is a member as far as a keeper knows it.
type issuer struct {
	ententev1.SVIDServiceClient
	ententev1.BundleServiceClient
	key       crypto.Signer
	ca        *x509.Certificate
	mu        sync.Mutex // the test changes what follows while the keeper asks
	authority string
	sequence  uint64
	issued    int
	refuse    error
	distrust  chan *ententev1.WatchAuthoritiesResponse
	publish   chan *ententev1.WatchBundlesResponse
}

// stream is one that brings what is sent to a channel, and breaks when that is closed.
type stream[M any] struct {
	grpc.ClientStream
	ctx  context.Context
	from <-chan *M
}

func (s stream[M]) Recv() (*M, error) {
	select {
	case m, ok := <-s.from:
		if !ok {
			return nil, status.Error(codes.Unavailable, "the member is gone")
		}
		return m, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func newIssuer(t *testing.T) *issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now(), NotAfter: time.Now().Add(1000 * time.Hour), URIs: []*url.URL{{Scheme: "spiffe", Host: "eu.example.org"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	ca, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	i := &issuer{key: key, ca: ca, authority: "a", sequence: 1}
	i.distrust, i.publish = make(chan *ententev1.WatchAuthoritiesResponse, 1), make(chan *ententev1.WatchBundlesResponse, 1)
	return i
}

func (i *issuer) document() []byte {
	b := spiffebundle.FromX509Authorities(spiffeid.RequireTrustDomainFromString("eu.example.org"), []*x509.Certificate{i.ca})
	b.SetSequenceNumber(i.sequence)
	document, err := b.Marshal()
	if err != nil {
		panic(err)
	}
	return document
}

func (i *issuer) IssueX509SVID(_ context.Context, r *ententev1.IssueX509SVIDRequest, _ ...grpc.CallOption) (*ententev1.IssueX509SVIDResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.refuse != nil {
		return nil, i.refuse
	}
	csr, err := x509.ParseCertificateRequest(r.GetCsr())
	if err != nil {
		return nil, err
	}
	id, err := url.Parse(r.GetSpiffeId())
	if err != nil {
		return nil, err
	}
	i.issued++
	template := &x509.Certificate{SerialNumber: big.NewInt(int64(i.issued)), NotBefore: time.Now().Add(-10 * time.Second), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{id}}
	der, err := x509.CreateCertificate(rand.Reader, template, i.ca, csr.PublicKey, i.key)
	return &ententev1.IssueX509SVIDResponse{Certificates: [][]byte{der}, AuthorityId: i.authority, Bundle: i.document()}, err
}

func (i *issuer) WatchAuthorities(ctx context.Context, _ *ententev1.WatchAuthoritiesRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[ententev1.WatchAuthoritiesResponse], error) {
	return stream[ententev1.WatchAuthoritiesResponse]{ctx: ctx, from: i.distrust}, nil
}

func (i *issuer) WatchBundles(ctx context.Context, _ *ententev1.WatchBundlesRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[ententev1.WatchBundlesResponse], error) {
	return stream[ententev1.WatchBundlesResponse]{ctx: ctx, from: i.publish}, nil
}

func (i *issuer) set(change func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change()
}

// taint has the member tell that an authority is trusted no more, and sign with the next one.
func (i *issuer) taint(id, next string) {
	i.set(func() { i.authority = next })
	i.distrust <- &ententev1.WatchAuthoritiesResponse{Distrusted: []*ententev1.DistrustedAuthority{{TrustDomain: "eu.example.org", Id: id}}}
}

func TestKeepSVID(t *testing.T) {
	away := status.Error(codes.Unavailable, "there is no leader")
	for name, test := range map[string]struct {
		play   func(t *testing.T, i *issuer, dir string)
		issued int
		said   []string // what each line holds
	}{
		"renewed at half of its life": {
			play:   func(_ *testing.T, _ *issuer, _ string) { wait(61 * time.Minute) },
			issued: 3, said: []string{"half of its life is over", "half of its life is over"},
		},
		"tainted: renewed at once": {
			play: func(t *testing.T, i *issuer, dir string) {
				was := read(t, dir)
				wait(time.Minute)
				i.taint("a", "b")
				synctest.Wait()
				require.NotEqual(t, was, read(t, dir))
				i.taint("elsewhere", "b")
				synctest.Wait()
			},
			issued: 2, said: []string{"is renewed by authority b until 2000-01-01T01:01:00Z: authority a is trusted no more"},
		},
		"a member that has not heard of the taint is asked again": {
			play: func(_ *testing.T, i *issuer, _ string) {
				i.taint("a", "a")
				synctest.Wait()
				i.set(func() { i.authority = "b" })
				wait(time.Second)
			},
			issued: 3, said: []string{"the member still signs with authority a, which is trusted no more", "is renewed by authority b"},
		},
		"a new bundle, with the same key": {
			play: func(t *testing.T, i *issuer, dir string) {
				was, old := read(t, dir), readFile(t, dir, bundleFile)
				other := newIssuer(t)
				other.sequence = 2
				i.publish <- &ententev1.WatchBundlesResponse{Changed: []*ententev1.Bundle{{TrustDomain: "eu.example.org", Document: other.document()}}}
				synctest.Wait()
				require.Equal(t, was, read(t, dir))
				require.NotEqual(t, old, readFile(t, dir, bundleFile))
				// An answer of a member that has not heard of it does not bring the old one back.
				now := readFile(t, dir, bundleFile)
				i.taint("a", "b")
				synctest.Wait()
				require.Equal(t, now, readFile(t, dir, bundleFile))
			},
			issued: 2, said: []string{"has a new bundle of 1 X.509 authorities, sequence 2", "is renewed by authority b"},
		},
		"an outage is told of once, and that it expired": {
			play: func(t *testing.T, i *issuer, dir string) {
				was := read(t, dir)
				i.set(func() { i.refuse = away })
				wait(2 * time.Hour)
				require.Equal(t, was, read(t, dir), "the files stay")
				i.set(func() { i.refuse = nil })
				wait(time.Minute)
			},
			issued: 2, said: []string{"could not be renewed, and will be tried again; it is valid until 2000-01-01T01:00:00Z: there is no leader", "has expired, and still cannot be renewed: there is no leader", "is renewed by authority a"},
		},
		"a broken watch is opened again": {
			play: func(_ *testing.T, i *issuer, _ string) {
				broken := i.distrust
				i.distrust = make(chan *ententev1.WatchAuthoritiesResponse, 1)
				close(broken)
				i.taint("a", "b")
				wait(time.Second)
			},
			issued: 2, said: []string{"is not told of changes of authorities until the watch is open again: the member is gone", "is renewed by authority b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			clocktest.Run(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				i := newIssuer(t)
				var said bytes.Buffer
				k := &keeper{wantedSVID: wantedSVID{id: spiffeid.RequireFromString("spiffe://eu.example.org/web")}, dir: dir, svids: i, bundles: i, timeout: time.Second, log: &said}
				ended := make(chan error, 1)
				go func() {
					ended <- k.keep(ctx, func(*ententev1.IssueX509SVIDResponse) error { return nil })
				}()
				synctest.Wait()
				test.play(t, i, dir)
				cancel()
				require.ErrorIs(t, <-ended, context.Canceled)
				require.Equal(t, test.issued, i.issued)
				lines := strings.Split(strings.TrimSpace(said.String()), "\n")
				require.Len(t, lines, len(test.said), said.String())
				for n, line := range lines {
					require.Contains(t, line, test.said[n])
					require.True(t, strings.HasPrefix(line, "entente: the SVID of spiffe://eu.example.org/web "), line)
				}
			})
		})
	}
}

// TestKeepSVIDAtTheBeginning: it waits for a member that is not there yet, and ends at what will not go away.
func TestKeepSVIDAtTheBeginning(t *testing.T) {
	dir := t.TempDir()
	clocktest.Run(t, func(t *testing.T) {
		i := newIssuer(t)
		i.set(func() { i.refuse = status.Error(codes.Unavailable, "not yet") })
		var said bytes.Buffer
		k := &keeper{wantedSVID: wantedSVID{id: spiffeid.RequireFromString("spiffe://eu.example.org/web")}, dir: dir, svids: i, bundles: i, timeout: time.Second, log: &said}
		ended := make(chan error, 1)
		go func() { ended <- k.keep(t.Context(), nil) }()
		wait(time.Hour)
		i.set(func() { i.refuse = status.Error(codes.PermissionDenied, "never") })
		require.Equal(t, codes.PermissionDenied, status.Code(<-ended))
		require.Equal(t, "entente: the SVID of spiffe://eu.example.org/web could not be issued, and will be tried again: not yet\n", said.String())
	})
}

// wait lets time pass in a bubble, until nobody in it has anything to do.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// read returns certificate and key, which have to belong together.
func read(t *testing.T, dir string) string {
	t.Helper()
	_, err := tls.LoadX509KeyPair(filepath.Join(dir, svidFile), filepath.Join(dir, keyFile))
	require.NoError(t, err)
	return readFile(t, dir, svidFile) + readFile(t, dir, keyFile)
}

func readFile(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(b)
}

// TestGenerations: a reader that goes through one look at ..data has files of one generation or none; what was there before
// is replaced, and nothing but the present generation stays.
func TestGenerations(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("of an earlier version"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, generationPrefix+"left"), 0o700))
	stop, read := make(chan struct{}), make(chan error, 1)
	write := func(n int) {
		at := []byte(fmt.Sprint(n))
		require.NoError(t, writeGeneration(dir, []part{{"a", 0o600, at}, {"b", 0o644, at}}))
	}
	write(0)
	go func() {
		for {
			select {
			case <-stop:
				read <- nil
				return
			default:
			}
			generation, err := os.Readlink(filepath.Join(dir, currentLink))
			if err != nil {
				read <- err
				return
			}
			a, errA := os.ReadFile(filepath.Join(dir, generation, "a"))
			b, errB := os.ReadFile(filepath.Join(dir, generation, "b"))
			if errA == nil && errB == nil && !bytes.Equal(a, b) {
				read <- fmt.Errorf("%s and %s", a, b)
				return
			}
		}
	}()
	for n := range 50 {
		write(n)
	}
	close(stop)
	require.NoError(t, <-read)
	require.Equal(t, "49", readFile(t, dir, "a"))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 4, "a, b, ..data and one generation")
	info, err := os.Stat(filepath.Join(dir, "a"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}
