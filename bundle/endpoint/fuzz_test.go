package endpoint_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{"https://a.test/bundle?x=1", "https://user@a.test", "https://[::1]:443/", "http://a",
		"https://a:0/#f", "https:a", "https://a:/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := endpoint.ParseURL(s)
		if err != nil {
			if bundle.Reason(err) != "bad_url" || u != nil {
				t.Fatalf("%q: %v %v", s, u, err)
			}
			return
		}
		again, err := endpoint.ParseURL(u.String())
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || again.Host != u.Host {
			t.Fatalf("%q became %q: %v", s, u, err)
		}
	})
}

// No file of roots is so written that a block behind it can be left out without a word.
func FuzzWebRoots(f *testing.F) {
	roots := bundletest.NewBundle(f, bundletest.Home, 1, bundletest.NewAuthority(f, bundletest.Home)).PEM()
	broken := []byte("\n-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
	f.Add(roots)
	f.Add(slices.Concat([]byte("# a root\n"), roots, roots))
	f.Add(slices.Concat(roots, broken, roots))
	f.Fuzz(func(t *testing.T, pem []byte) {
		_, err := endpoint.NewWeb(bundletest.Home, "https://example.org/", pem)
		if err != nil {
			if !errors.Is(err, endpoint.ErrEndpoint) {
				t.Fatalf("refused without a name: %v", err)
			}
			return
		}
		if _, err := endpoint.NewWeb(bundletest.Home, "https://example.org/", slices.Concat(pem, broken,
			roots)); err == nil {
			t.Fatal("a broken block was left out")
		}
	})
}
