package bundle_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/ententehq/entente/bundle"
)

func golden(f *testing.F) []byte {
	f.Helper()
	document, err := os.ReadFile("testdata/bundle.json")
	if err != nil {
		f.Fatal(err)
	}
	return document
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"keys":[]}`))
	f.Add([]byte(`{"keys":[{"kty":"oct","use":"jwt-svid"}],"spiffe_sequence":18446744073709551615,"spiffe_refresh_hint":300}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","use":"jwt-svid","kid":"k","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","use":"jwt-svid","kid":"k","n":"_w","e":"AQAB"}]}`))
	f.Add(golden(f))
	f.Fuzz(func(t *testing.T, document []byte) {
		b, ignored, err := bundle.Parse(home, document)
		if err != nil {
			if r := bundle.Reason(err); b != nil || r == "other" || r == "ok" {
				t.Fatalf("refused as %s with a bundle %v: %v", r, b, err)
			}
			return
		}
		if len(ignored) > bundle.MaxIgnored+1 || bundle.CountIgnored(ignored) > 4*bundle.MaxKeys {
			t.Fatalf("%d parts ignored", len(ignored))
		}
		again, left, err := bundle.Parse(home, b.Marshal())
		if err != nil || len(left) != 0 || !again.Equal(b) || !bytes.Equal(again.Marshal(), b.Marshal()) || again.Digest() != b.Digest() {
			t.Fatalf("written and read again: %v %v\n%s", err, left, b.Marshal())
		}
	})
}

func FuzzParseMap(f *testing.F) {
	f.Add([]byte(`{"trust_domains":{}}`))
	f.Add([]byte(`{"trust_domains":{"a.test":{"keys":[]},"b.test":{"keys":[],"spiffe_refresh_hint":9}},"x":[]}`))
	f.Add([]byte(`{"trust_domains":{"a":{"keys":[]},"\u0061":{"keys":[]}}}`))
	f.Add(fmt.Appendf(nil, `{"trust_domains":{"eu.example.org":%s,"x":{"keys":[{"kty":"oct"}]}}}`, golden(f)))
	f.Fuzz(func(t *testing.T, data []byte) {
		bundles, _, err := bundle.ParseMap(data)
		if err != nil {
			if bundles != nil {
				t.Fatal("a part of a refused map was kept")
			}
			return
		}
		var list []*bundle.Bundle
		for td, b := range bundles {
			if b.TrustDomain() != td {
				t.Fatalf("the bundle of %s is filed under %s", b.TrustDomain(), td)
			}
			list = append(list, b)
		}
		text, err := bundle.MarshalMap(list)
		if err != nil {
			t.Fatal(err)
		}
		again, ignored, err := bundle.ParseMap(text)
		if err != nil || len(ignored) != 0 || len(again) != len(bundles) {
			t.Fatalf("written and read again: %v %v\n%s", err, ignored, text)
		}
	})
}

func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{"https://a.test/bundle?x=1", "https://user@a.test", "https://[::1]:443/", "http://a", "https://a:0/#f", "https:a", "https://a:/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := bundle.ParseURL(s)
		if err != nil {
			if bundle.Reason(err) != "bad_url" || u != nil {
				t.Fatalf("%q: %v %v", s, u, err)
			}
			return
		}
		again, err := bundle.ParseURL(u.String())
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || again.Host != u.Host {
			t.Fatalf("%q became %q: %v", s, u, err)
		}
	})
}

// No file of roots is so written that a block behind it can be left out without a word.
func FuzzWebRoots(f *testing.F) {
	roots := newBundle(f, home, 1, newAuthority(f, home)).PEM()
	broken := []byte("\n-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
	f.Add(roots)
	f.Add(slices.Concat([]byte("# a root\n"), roots, roots))
	f.Add(slices.Concat(roots, broken, roots))
	f.Fuzz(func(t *testing.T, pem []byte) {
		_, err := bundle.WebEndpoint(home, "https://example.org/", pem)
		if err != nil {
			if !errors.Is(err, bundle.ErrEndpoint) {
				t.Fatalf("refused without a name: %v", err)
			}
			return
		}
		if _, err := bundle.WebEndpoint(home, "https://example.org/", slices.Concat(pem, broken, roots)); err == nil {
			t.Fatal("a broken block was left out")
		}
	})
}
