package bundle_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/bundletest"
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
	f.Add(
		[]byte(
			`{"keys":[{"kty":"oct","use":"jwt-svid"}],"spiffe_sequence":18446744073709551615,` +
				`"spiffe_refresh_hint":300}`,
		),
	)
	f.Add(
		[]byte(
			`{"keys":[{"kty":"OKP","crv":"Ed25519","use":"jwt-svid","kid":"k",` +
				`"x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`,
		),
	)
	f.Add([]byte(`{"keys":[{"kty":"RSA","use":"jwt-svid","kid":"k","n":"_w","e":"AQAB"}]}`))
	f.Add(golden(f))
	f.Fuzz(func(t *testing.T, document []byte) {
		b, ignored, err := bundle.Parse(bundletest.Home, document)
		if err != nil {
			if r := bundle.Reason(err); b != nil || r == "other" || r == "ok" {
				t.Fatalf("refused as %s with a bundle %v: %v", r, b, err)
			}
			return
		}
		if len(ignored) > bundle.MaxIgnored+1 || bundle.CountIgnored(ignored) > 4*bundle.MaxKeys {
			t.Fatalf("%d parts ignored", len(ignored))
		}
		again, left, err := bundle.Parse(bundletest.Home, b.Marshal())
		if err != nil || len(left) != 0 || !again.Equal(b) || !bytes.Equal(again.Marshal(), b.Marshal()) ||
			again.Digest() != b.Digest() {
			t.Fatalf("written and read again: %v %v\n%s", err, left, b.Marshal())
		}
	})
}
