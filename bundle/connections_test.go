package bundle_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
)

// keeping is an endpoint whose certificate can be replaced, with clients that keep their connections to it.
type keeping struct {
	peer
	cert  atomic.Pointer[tls.Certificate]
	dials atomic.Int64
	kept  *bundle.Connections
	now   time.Time
}

func newKeeping(t *testing.T, handler http.HandlerFunc) *keeping {
	t.Helper()
	k := &keeping{kept: bundle.NewConnections(2), now: time.Now()}
	k.ca = newAuthority(t, home)
	k.present(t, k.ca)
	k.Server = httptest.NewUnstartedServer(handler)
	k.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.cert.Load(), nil }}
	k.Config.ErrorLog = discardLog()
	k.StartTLS()
	t.Cleanup(k.Close)
	t.Cleanup(k.kept.Close)
	return k
}

// present has the endpoint prove itself by an authority from now on.
func (k *keeping) present(t *testing.T, ca authority) {
	t.Helper()
	k.cert.Store(ca.svid(t, endpointID.String()))
}

// fetch fetches with a client of its own, and says how many connections were opened for it.
func (k *keeping) fetch(t *testing.T, as, path string, trust *bundle.Bundle) (dials int64, err error) {
	t.Helper()
	e, err := bundle.SPIFFEEndpoint(home, k.url(path), endpointID)
	require.NoError(t, err)
	before := k.dials.Load()
	_, err = bundle.NewClient(bundle.ClientConfig{
		Bundles: trust, Kept: k.kept, KeptAs: as, Now: func() time.Time { return k.now },
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			k.dials.Add(1)
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}).Fetch(t.Context(), e, "")
	return k.dials.Load() - before, err
}

func serves(t *testing.T) http.HandlerFunc {
	t.Helper()
	document := newBundle(t, home, 1, newAuthority(t, home)).Marshal()
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(document) }
}

func TestConnectionIsKept(t *testing.T) {
	k := newKeeping(t, serves(t))
	trust := newBundle(t, home, 1, k.ca)
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
	k.now = k.now.Add(11 * time.Minute)
	fetch("a", 1) // it was used for long enough
	k.CloseClientConnections()
	fetch("a", 1)
	k.kept.Close()
	fetch("a", 1)
	fetch("a", 1)
}

// TestKeptConnectionIsTrustedAnew: a kept connection is worth what its certificate is worth at the fetch, by that fetch's bundle and time.
func TestKeptConnectionIsTrustedAnew(t *testing.T) {
	k := newKeeping(t, serves(t))
	other := newAuthority(t, home)
	before, both, after := newBundle(t, home, 1, k.ca), newBundle(t, home, 2, k.ca, other), newBundle(t, home, 3, other)
	_, err := k.fetch(t, "a", "/", both)
	require.NoError(t, err)

	dials, err := k.fetch(t, "a", "/", after)
	require.Equal(t, "untrusted_svid", bundle.Reason(err), "the authority is distrusted: %v", err)
	require.EqualValues(t, 1, dials, "a new handshake says so")

	_, err = k.fetch(t, "a", "/", both)
	require.NoError(t, err)
	k.present(t, other)
	k.CloseClientConnections()
	_, err = k.fetch(t, "a", "/", before)
	require.Equal(t, "untrusted_svid", bundle.Reason(err), "what is dialed in place of a kept connection is verified by the fetch's own bundle: %v", err)

	_, err = k.fetch(t, "a", "/", both)
	require.NoError(t, err)
	k.now = k.now.Add(48 * time.Hour)
	dials, err = k.fetch(t, "a", "/", both)
	require.Error(t, err, "it has expired")
	require.EqualValues(t, 1, dials)
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
	trust := newBundle(t, home, 1, k.ca)
	for range 2 {
		dials, err := k.fetch(t, "a", "/broken", trust)
		require.Error(t, err)
		require.EqualValues(t, 1, dials)
		dials, err = k.fetch(t, "a", "/elsewhere", trust)
		require.NoError(t, err)
		require.Positive(t, dials)
	}
}
