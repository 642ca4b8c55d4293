package client

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"net/url"
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

// issuer is a member as an X509Source sees it.
type issuer struct {
	ententev1.SVIDServiceClient
	ententev1.BundleServiceClient
	key       crypto.Signer
	ca        *x509.Certificate
	mu        sync.Mutex // guards what follows
	authority string
	sequence  uint64
	issued    int
	refuse    error
	distrust  chan *ententev1.WatchAuthoritiesResponse
	publish   chan *ententev1.WatchBundlesResponse
}

// fakeStream delivers what is sent to a channel, and breaks when the channel is closed.
type fakeStream[M any] struct {
	grpc.ClientStream
	ctx  context.Context
	from <-chan *M
}

func (s fakeStream[M]) Recv() (*M, error) {
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
		NotBefore: time.Now(), NotAfter: time.Now().Add(1000 * time.Hour),
		URIs: []*url.URL{{Scheme: "spiffe", Host: "eu.example.org"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	ca, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	i := &issuer{key: key, ca: ca, authority: "a", sequence: 1}
	i.distrust, i.publish = make(
		chan *ententev1.WatchAuthoritiesResponse,
		1,
	), make(
		chan *ententev1.WatchBundlesResponse,
		2,
	)
	return i
}

func (i *issuer) document() []byte {
	b := spiffebundle.FromX509Authorities(
		spiffeid.RequireTrustDomainFromString("eu.example.org"),
		[]*x509.Certificate{i.ca},
	)
	b.SetSequenceNumber(i.sequence)
	document, err := b.Marshal()
	if err != nil {
		panic(err)
	}
	return document
}

func (i *issuer) IssueX509SVID(
	_ context.Context,
	r *ententev1.IssueX509SVIDRequest,
	_ ...grpc.CallOption,
) (*ententev1.IssueX509SVIDResponse, error) {
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
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(i.issued)),
		NotBefore:    time.Now().Add(-10 * time.Second),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		URIs:         []*url.URL{id},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.ca, csr.PublicKey, i.key)
	return &ententev1.IssueX509SVIDResponse{
		Certificates: [][]byte{der},
		AuthorityId:  i.authority,
		Bundle:       i.document(),
	}, err
}

func (i *issuer) WatchAuthorities(
	ctx context.Context,
	_ *ententev1.WatchAuthoritiesRequest,
	_ ...grpc.CallOption,
) (grpc.ServerStreamingClient[ententev1.WatchAuthoritiesResponse], error) {
	return fakeStream[ententev1.WatchAuthoritiesResponse]{ctx: ctx, from: i.distrust}, nil
}

func (i *issuer) WatchBundles(
	ctx context.Context,
	_ *ententev1.WatchBundlesRequest,
	_ ...grpc.CallOption,
) (grpc.ServerStreamingClient[ententev1.WatchBundlesResponse], error) {
	return fakeStream[ententev1.WatchBundlesResponse]{ctx: ctx, from: i.publish}, nil
}

func (i *issuer) set(change func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change()
}

// taint reports an authority as distrusted, and signs with the next one.
func (i *issuer) taint(id, next string) {
	i.set(func() { i.authority = next })
	i.distrust <- &ententev1.WatchAuthoritiesResponse{
		Distrusted: []*ententev1.DistrustedAuthority{{TrustDomain: "eu.example.org", Id: id}},
	}
}

// events collects the sentences of events.
type events struct {
	mu   sync.Mutex
	text []string
}

func (e *events) add(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	text := event.Message
	if event.Err != nil {
		text += ": " + status.Convert(event.Err).Message()
	}
	e.text = append(e.text, text)
}

func (e *events) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.text
}

func TestX509Source(t *testing.T) {
	unavailable := status.Error(codes.Unavailable, "there is no leader")
	for name, test := range map[string]struct {
		play   func(t *testing.T, i *issuer, s *X509Source)
		issued int
		events []string
	}{
		"renewed at half of its lifetime": {
			play:   func(*testing.T, *issuer, *X509Source) { wait(61 * time.Minute) },
			issued: 3,
			events: []string{"was renewed by authority a until", "was renewed by authority a until"},
		},
		"tainted: renewed at once": {
			play: func(t *testing.T, i *issuer, s *X509Source) {
				was := s.Issued()
				wait(time.Minute)
				i.taint("a", "b")
				synctest.Wait()
				require.NotEqual(t, was, s.Issued())
				i.taint("other", "b")
				synctest.Wait()
			},
			issued: 2,
			events: []string{"was renewed by authority b until 2000-01-01T01:01:00Z: authority a is no longer trusted"},
		},
		"a member that has not seen the taint is called again": {
			play: func(_ *testing.T, i *issuer, _ *X509Source) {
				i.taint("a", "a")
				synctest.Wait()
				i.set(func() { i.authority = "b" })
				wait(time.Second)
			},
			issued: 3,
			events: []string{
				"could not be renewed, and is retried; it is valid until 2000-01-01T01:00:00Z: " +
					"the member still signs with authority a, which is no longer trusted",
				"was renewed by authority b",
			},
		},
		"a new bundle, with the same key": {
			play: func(t *testing.T, i *issuer, s *X509Source) {
				was, old := s.Issued(), s.OwnBundle()
				other := newIssuer(t)
				other.sequence = 2
				i.publish <- bundlesOf(other)
				synctest.Wait()
				require.Equal(t, was, s.Issued())
				now := s.OwnBundle()
				require.NotEqual(t, old.Marshal(), now.Marshal())
				require.Equal(t, now, s.Bundles()[0])
				// The answer of a member that is behind does not bring the old bundle back.
				i.taint("a", "b")
				synctest.Wait()
				require.Equal(t, now, s.OwnBundle())
			},
			issued: 2,
			events: []string{"has a new bundle of 1 X.509 authorities, sequence 2", "was renewed by authority b"},
		},
		"an outage and the expiry in it are reported once": {
			play: func(t *testing.T, i *issuer, s *X509Source) {
				was := s.Issued()
				i.set(func() { i.refuse = unavailable })
				wait(2 * time.Hour)
				require.Equal(t, was, s.Issued(), "the SVID stays")
				i.set(func() { i.refuse = nil })
				wait(time.Minute)
			},
			issued: 2,
			events: []string{
				"could not be renewed, and is retried; it is valid until 2000-01-01T01:00:00Z: there is no leader",
				"has expired, and still cannot be renewed: there is no leader",
				"was renewed by authority a",
			},
		},
		"a broken watch is opened again": {
			play: func(_ *testing.T, i *issuer, _ *X509Source) {
				broken := i.distrust
				i.distrust = make(chan *ententev1.WatchAuthoritiesResponse, 1)
				close(broken)
				i.taint("a", "b")
				wait(time.Second)
			},
			issued: 2,
			events: []string{
				"receives no changes of authorities until the watch is open again: the member is gone",
				"was renewed by authority b",
			},
		},
		"a domain that is no longer hosted": {
			play: func(t *testing.T, i *issuer, s *X509Source) {
				i.publish <- &ententev1.WatchBundlesResponse{Deleted: []string{"eu.example.org"}}
				synctest.Wait()
				require.Empty(t, s.Bundles())
				_, err := s.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString("eu.example.org"))
				require.NoError(t, err, "the bundle that came with the SVID stays")
			},
			issued: 1,
			events: []string{"stays as it is, but the cluster no longer hosts eu.example.org"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			clocktest.Run(t, func(t *testing.T) {
				i := newIssuer(t)
				i.publish <- bundlesOf(i)
				var got events
				s, err := newX509Source(
					t.Context(),
					i,
					i,
					X509SourceConfig{ID: web, CallTimeout: time.Second, OnEvent: got.add},
				)
				require.NoError(t, err)
				synctest.Wait()
				defer func() { require.NoError(t, s.Close()) }() // a bubble with a source does not end by itself
				test.play(t, i, s)
				require.NoError(t, s.Close())
				require.Equal(t, test.issued, i.issued)
				require.Len(t, got.all(), len(test.events), got.all())
				for n, text := range got.all() {
					require.Contains(t, text, test.events[n])
				}
			})
		})
	}
}

var web = spiffeid.RequireFromString("spiffe://eu.example.org/web")

func bundlesOf(i *issuer) *ententev1.WatchBundlesResponse {
	return changed("eu.example.org", i.document())
}

func changed(domain string, document []byte) *ententev1.WatchBundlesResponse {
	return &ententev1.WatchBundlesResponse{Changed: []*ententev1.Bundle{{TrustDomain: domain, Document: document}}}
}

// NewX509Source waits for a member that is not there yet, and returns an error that does not go away.
func TestNewX509Source(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		i := newIssuer(t)
		i.set(func() { i.refuse = status.Error(codes.Unavailable, "not yet") })
		var got events
		ended := make(chan error, 1)
		go func() {
			_, err := newX509Source(t.Context(), i, i, X509SourceConfig{ID: web, OnEvent: got.add})
			ended <- err
		}()
		wait(time.Hour)
		i.set(func() { i.refuse = status.Error(codes.PermissionDenied, "never") })
		err := <-ended
		require.EqualError(t, err, "issue an SVID for spiffe://eu.example.org/web: rpc error: code = "+
			"PermissionDenied desc = never")
		require.Equal(t, codes.PermissionDenied, status.Code(err))
		require.Equal(t, []string{"could not be issued, and is retried: not yet"}, got.all())
	})
}

func TestNewX509SourceEndsWithItsContext(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		i := newIssuer(t) // delivers no bundle
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("too late"))
		defer cancel()
		_, err := newX509Source(ctx, i, i, X509SourceConfig{ID: web})
		require.EqualError(t, err, "issue an SVID for spiffe://eu.example.org/web: too late")
	})
}

func TestBundleSource(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		i := newIssuer(t)
		var got events
		first := bundlesOf(i)
		first.Changed = append(first.Changed, &ententev1.Bundle{TrustDomain: "us.example.org", Document: i.document()})
		first.More = true
		i.publish <- first
		i.publish <- changed("asia.example.org", i.document())
		s, err := newBundleSource(t.Context(), i, BundleSourceConfig{OnEvent: got.add})
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Close()) }()
		require.Equal(t, []string{"asia.example.org", "eu.example.org", "us.example.org"}, domains(s))

		// An invalid bundle does not replace the stored one.
		<-s.Updated()
		i.publish <- changed("us.example.org", []byte("{"))
		<-s.Updated()
		us := spiffeid.RequireTrustDomainFromString("us.example.org")
		held, err := s.GetX509BundleForTrustDomain(us)
		require.NoError(t, err)
		require.True(t, held.HasX509Authority(i.ca))
		jwt, err := s.GetJWTBundleForTrustDomain(us)
		require.NoError(t, err)
		require.Empty(t, jwt.JWTAuthorities())

		// A domain that is missing from the state of the next stream was deleted meanwhile.
		broken := i.publish
		i.publish = make(chan *ententev1.WatchBundlesResponse, 1)
		i.publish <- bundlesOf(i)
		close(broken)
		<-s.Updated()
		require.Equal(t, []string{"eu.example.org"}, domains(s))
		_, err = s.GetX509BundleForTrustDomain(us)
		require.EqualError(t, err, "the cluster has no bundle of us.example.org for this caller")
		_, err = s.GetJWTBundleForTrustDomain(us)
		require.EqualError(t, err, "the cluster has no bundle of us.example.org for this caller")
		require.Len(t, got.all(), 2)
		require.Contains(t, got.all()[0], "keeps the previous bundle of us.example.org: the new one is invalid: ")
		require.Equal(
			t,
			"receives no changes of bundles until the watch is open again: the member is gone",
			got.all()[1],
		)
	})
}

func domains(s *BundleSource) (names []string) {
	for _, b := range s.Bundles() {
		names = append(names, b.TrustDomain().Name())
	}
	return names
}

// wait lets time pass, until all goroutines of the bubble are blocked.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
