package endpoint_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

// keeping is an endpoint whose certificate can be replaced, with clients that keep their connections to it.
type keeping struct {
	peer
	cert  atomic.Pointer[tls.Certificate]
	dials atomic.Int64
	kept  *endpoint.Connections
	now   time.Time
}

func newKeeping(t *testing.T, handler http.HandlerFunc) *keeping {
	t.Helper()
	k := &keeping{kept: endpoint.NewConnections(2), now: time.Now()}
	k.ca = bundletest.NewAuthority(t, bundletest.Home)
	k.present(t, k.ca)
	k.Server = httptest.NewUnstartedServer(handler)
	k.TLS = &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.cert.Load(), nil },
	}
	k.Config.ErrorLog = discardLog()
	k.StartTLS()
	t.Cleanup(k.Close)
	t.Cleanup(k.kept.Close)
	return k
}

// present has the endpoint prove itself by an authority from now on.
func (k *keeping) present(t *testing.T, ca bundletest.Authority) {
	t.Helper()
	svid := bundletest.SVIDTemplate(bundletest.EndpointID)
	svid.NotAfter = time.Now().Add(12 * time.Hour)
	k.cert.Store(ca.Sign(t, svid))
}

// fetch fetches with a client of its own, and returns the number of connections that were opened for it.
func (k *keeping) fetch(t *testing.T, as, path string, trust *bundle.Bundle) (dials int64, err error) {
	t.Helper()
	return k.fetchVersion(t, as, path, trust, 0)
}

// fetchVersion is fetch with the version of the trust.
func (k *keeping) fetchVersion(
	t *testing.T,
	as, path string,
	trust x509bundle.Source,
	version uint64,
) (dials int64, err error) {
	t.Helper()
	e, err := endpoint.NewSPIFFE(bundletest.Home, k.url(path), bundletest.EndpointID)
	require.NoError(t, err)
	before := k.dials.Load()
	_, err = endpoint.NewClient(endpoint.ClientConfig{
		Bundles: trust, Version: version, Kept: k.kept, KeptAs: as, Now: func() time.Time { return k.now },
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			k.dials.Add(1)
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}).Fetch(t.Context(), e, "")
	return k.dials.Load() - before, err
}

func serves(t *testing.T) http.HandlerFunc {
	t.Helper()
	document := bundletest.NewBundle(t, bundletest.Home, 1, bundletest.NewAuthority(t, bundletest.Home)).Marshal()
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(document) }
}

func TestConnectionIsKept(t *testing.T) {
	k := newKeeping(t, serves(t))
	trust := bundletest.NewBundle(t, bundletest.Home, 1, k.ca)
	fetch := func(as string, dials int64) {
		t.Helper()
		got, err := k.fetch(t, as, "/", trust)
		require.NoError(t, err)
		require.Equal(t, dials, got)
	}
	fetch("a", 1)
	fetch("a", 0)
	fetch("b", 1) // what is kept for one is not used for another
	fetch("c", 1) // and there is room for two
	fetch("c", 1)
	fetch("a", 0)
	k.now = k.now.Add(16 * time.Minute)
	fetch("a", 1) // it lay idle for too long
	for range 6 {
		k.now = k.now.Add(10 * time.Minute)
		fetch("a", 0)
	}
	k.now = k.now.Add(10 * time.Minute)
	fetch("a", 1) // it was used for long enough
	k.CloseClientConnections()
	fetch("a", 1)
	k.kept.Close()
	fetch("a", 1)
	fetch("a", 1)
}

// TestKeptConnectionIsVerifiedAgain: the certificate of a kept connection is verified at each fetch, with the
// bundle and the time of that fetch.
func TestKeptConnectionIsVerifiedAgain(t *testing.T) {
	k := newKeeping(t, serves(t))
	other := bundletest.NewAuthority(t, bundletest.Home)
	before, both, after := bundletest.NewBundle(
		t,
		bundletest.Home,
		1,
		k.ca,
	), bundletest.NewBundle(
		t,
		bundletest.Home,
		2,
		k.ca,
		other,
	), bundletest.NewBundle(
		t,
		bundletest.Home,
		3,
		other,
	)
	_, err := k.fetch(t, "a", "/", both)
	require.NoError(t, err)

	dials, err := k.fetch(t, "a", "/", after)
	require.Equal(t, "untrusted_svid", bundle.Reason(err), "the authority is distrusted: %v", err)
	require.EqualValues(t, 1, dials, "a new handshake was needed")

	_, err = k.fetch(t, "a", "/", both)
	require.NoError(t, err)
	k.present(t, other)
	k.CloseClientConnections()
	_, err = k.fetch(t, "a", "/", before)
	require.Equal(
		t,
		"untrusted_svid",
		bundle.Reason(err),
		"what is dialed in place of a kept connection is verified by the fetch's own bundle: %v",
		err,
	)

	_, err = k.fetch(t, "a", "/", both)
	require.NoError(t, err)
	k.now = k.now.Add(48 * time.Hour)
	dials, err = k.fetch(t, "a", "/", both)
	require.ErrorContains(t, err, "expired")
	require.EqualValues(t, 1, dials)
}

// countingSource counts the calls for a bundle.
type countingSource struct {
	*bundle.Bundle
	times int
}

func (a *countingSource) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	a.times++
	return a.Bundle.GetX509BundleForTrustDomain(td)
}

// TestKeptConnectionIsVerifiedOncePerVersion: a verified connection is not verified again until the version of the
// bundles changes or the certificate expires.
func TestKeptConnectionIsVerifiedOncePerVersion(t *testing.T) {
	k := newKeeping(t, serves(t))
	trust := &countingSource{Bundle: bundletest.NewBundle(t, bundletest.Home, 1, k.ca)}
	fetch := func(version uint64, dials int64, reads int) {
		t.Helper()
		got, err := k.fetchVersion(t, "a", "/", trust, version)
		require.NoError(t, err)
		require.Equal(t, dials, got)
		require.Equal(t, reads, trust.times)
	}
	fetch(7, 1, 1)
	fetch(7, 0, 1)
	fetch(8, 0, 2) // another version
	fetch(8, 0, 2)
	fetch(0, 0, 3) // none is known
	fetch(0, 0, 4)
	fetch(8, 0, 5)
	trust.Bundle = bundletest.NewBundle(t, bundletest.Home, 2, bundletest.NewAuthority(t, bundletest.Home))
	_, err := k.fetchVersion(t, "a", "/", trust, 9)
	require.Equal(t, "untrusted_svid", bundle.Reason(err), "%v", err)

	trust.Bundle = bundletest.NewBundle(t, bundletest.Home, 3, k.ca)
	trust.times = 0
	fetch(10, 1, 1)
	fetch(10, 0, 1)
	k.now = k.now.Add(48 * time.Hour)
	dials, err := k.fetchVersion(t, "a", "/", trust, 10)
	require.Equal(t, "svid_expired", bundle.Reason(err), "%v", err)
	require.EqualValues(t, 1, dials)
}

// TestLostConnection: a kept connection that is gone, was lost silently, or brings an unrequested answer costs no
// fetch.
func TestLostConnection(t *testing.T) {
	for _, test := range []struct {
		name string
		// second is what becomes of a connection at its second request.
		second func(request *bufio.Reader)
		first  string // follows the first answer
	}{
		{"it is closed before the request", func(*bufio.Reader) {}, ""},
		{"it is closed at the request", func(request *bufio.Reader) { _, _ = http.ReadRequest(request) }, ""},
		{"it is silent", func(request *bufio.Reader) { _, _ = io.Copy(io.Discard, request) }, ""},
		{"something follows the answer", func(request *bufio.Reader) { _, _ = io.Copy(io.Discard, request) },
			"HTTP/1.1 500 Oh\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			document := bundletest.NewBundle(t, bundletest.Home, 1, bundletest.NewAuthority(t, bundletest.Home)).
				Marshal()
			k := newKeeping(t, func(w http.ResponseWriter, _ *http.Request) {
				conn, over, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = conn.Close() }()
				_, _ = fmt.Fprintf(
					conn,
					"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s",
					len(document),
					document,
					test.first,
				)
				test.second(over.Reader)
			})
			trust := bundletest.NewBundle(t, bundletest.Home, 1, k.ca)
			for range 3 {
				dials, err := k.fetch(t, "a", "/", trust)
				require.NoError(t, err)
				require.EqualValues(t, 1, dials)
			}
		})
	}
}

// TestConnectionIsNotKept after anything but a document.
func TestConnectionIsNotKept(t *testing.T) {
	document := serves(t)
	k := newKeeping(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/elsewhere":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/broken":
			_, _ = w.Write([]byte("{}"))
		default:
			document(w, r)
		}
	})
	trust := bundletest.NewBundle(t, bundletest.Home, 1, k.ca)
	for range 2 {
		dials, err := k.fetch(t, "a", "/broken", trust)
		require.Equal(t, "no_keys", bundle.Reason(err), "%v", err)
		require.EqualValues(t, 1, dials)
		dials, err = k.fetch(t, "a", "/elsewhere", trust)
		require.NoError(t, err)
		require.Positive(t, dials)
	}
}
