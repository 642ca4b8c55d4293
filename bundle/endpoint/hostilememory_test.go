package endpoint_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
	"github.com/ententehq/entente/bundle/statement"
)

// filled repeats a part until a document has as many bytes as it may.
func filled(most int, first, again, last string) []byte {
	n := (most - len(first) - len(last)) / len(again)
	return []byte(first + strings.Repeat(again, n) + last)
}

// cost is what do allocates in all, given back or not, so that no turn of the collector changes it. What else runs in
// the process can only add to the sum: the least of several counts.
func cost(do func()) uint64 {
	least := ^uint64(0)
	for range 4 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		do()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

// counted writes parts with a number in each until a document is full.
func counted(most int, first string, again func(i int) string, last string) []byte {
	b := []byte(first)
	for i := 0; ; i++ {
		part := again(i)
		if len(b)+len(part)+len(last) > most {
			return append(b, last...)
		}
		b = append(b, part...)
	}
}

// TestMemoryOfAFetch: the worst documents within the bounds cost less than 16 MiB, counting all that is allocated from
// the first byte to the last.
func TestMemoryOfAFetch(t *testing.T) {
	const most = bundle.MaxDocumentBytes
	x, y := bundletest.ECMembers(t, &bundletest.NewKey(t).PublicKey)
	jwt := func(i int) string {
		return fmt.Sprintf(`{"kty":"EC","use":"jwt-svid","kid":"%d","crv":"P-256","x":"%s","y":"%s"},`, i, x, y)
	}
	certs := func(template func(i int) *x509.Certificate, n int) []byte {
		list := make([]string, n)
		key := bundletest.NewKey(t)
		for i := range list {
			der, err := x509.CreateCertificate(rand.Reader, template(i), template(i), key.Public(), key)
			require.NoError(t, err)
			list[i] = `{"kty":"EC","use":"x509-svid","x5c":["` + base64.StdEncoding.EncodeToString(der) + `"]}`
		}
		return []byte(`{"keys":[` + strings.Join(list, ",") + `]}`)
	}
	stuffed := func(stuff func(c *x509.Certificate)) []byte {
		return certs(func(int) *x509.Certificate {
			c := bundletest.CATemplate(bundletest.Home)
			stuff(c)
			return c
		}, 1)
	}
	for _, test := range []struct {
		name     string
		document []byte
		want     string
	}{
		{"tiny keys, a third of a million", filled(most, `{"keys":[`, `{},`, `{}]}`), "too_many_keys"},
		{"nested lists", filled(most, `{"keys":[`, `[`, ``), "malformed"},
		{"nested objects", filled(most, `{"keys":[],"x":`, `{"x":`, ``), "malformed"},
		{"members without meaning", counted(most, `{`, func(i int) string { return fmt.Sprintf(`"%x":0,`, i) },
			`"keys":[]}`), "too_many_members"},
		{"members without meaning in each key", counted(most, `{"keys":[`, func(int) string {
			return `{` + manyMembers +
				`},`
		}, `{}]}`), "ok"},
		{"one long string of escapes", filled(most, `{"keys":[],"x":"`, `\u0000`, `"}`), "ok"},
		{"a long name", filled(most, `{"keys":[],"`, `\u00e9`, `":0}`), "ok"},
		{"a long kty", filled(most, `{"keys":[{"kty":"`, `\u00e9`, `"}]}`), "ok"},
		{"a long kid", filled(most, `{"keys":[{"kty":"EC","use":"jwt-svid","kid":"`, `x`, `"}]}`), "ok"},
		{"a long key", filled(most, `{"keys":[{"kty":"RSA","use":"jwt-svid","kid":"k","e":"AQAB","n":"`, `AAECAw`,
			`"}]}`), "ok"},
		{"a long number", filled(most, `{"keys":[],"spiffe_sequence":`, `9`, `}`), "bad_sequence"},
		{"a long number without meaning", filled(most, `{"keys":[],"x":`, `9`, `}`), "ok"},
		{"a long hint", filled(most, `{"keys":[],"spiffe_refresh_hint":`, `9`, `}`), "ok"},
		{"a key with a long list of certificates", filled(most, `{"keys":[{"use":"x509-svid","kty":"EC","x5c":[`, `"",`,
			`""]}]}`), "ok"},
		{"as many JWT keys as there may be", counted(140<<10, `{"keys":[`, jwt, `{}]}`), "ok"},
		{"as many certificates as there may be", certs(func(i int) *x509.Certificate {
			c := bundletest.CATemplate(bundletest.Home)
			c.SerialNumber = big.NewInt(int64(i) + 1)
			return c
		}, 640), "ok"},
		{"a certificate of names", stuffed(namesOf(39_000)), "too_complex"},
		// in its subject and again in its issuer
		{"a certificate of as many names as it may have", stuffed(namesOf(4_000)), "ok"},
		{"a certificate of one long identifier", stuffed(func(c *x509.Certificate) {
			long := make(asn1.ObjectIdentifier, 350<<10)
			long[0] = 1
			c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: long, Value: "x"})
		}), "too_complex"},
		{"a certificate of one long string", stuffed(stringOf(asn1.TagBMPString, 350<<10)), "too_complex"},
		{"a certificate of one long string of old", stuffed(stringOf(asn1.TagT61String, 350<<10)), "too_complex"},
		{"a certificate of one long string of UTF-8, and URIs", stuffed(func(c *x509.Certificate) {
			stringOf(asn1.TagUTF8String, 280<<10)(c)
			urisOf(32_000)(c)
		}), "ok"},
		{"a certificate of URIs", stuffed(urisOf(120_000)), "too_complex"},
		{"a certificate of as many URIs as it may have", stuffed(urisOf(32_000)), "ok"},
		{"a certificate of extensions", stuffed(extensionsOf(50_000)), "too_complex"},
		{"a certificate of as many extensions as it may have", stuffed(extensionsOf(10_000)), "ok"},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.LessOrEqual(t, len(test.document), most)
			p := newPeer(
				t,
				func(ca bundletest.Authority) *tls.Certificate { return ca.SVID(t, bundletest.EndpointID.String()) },
				func(w http.ResponseWriter, _ *http.Request) {
					_, _ = io.Copy(w, bytes.NewReader(test.document))
				},
			)
			e, err := endpoint.NewSPIFFE(bundletest.Home, p.url("/"), bundletest.EndpointID)
			require.NoError(t, err)
			client := endpoint.NewClient(
				endpoint.ClientConfig{Bundles: bundletest.NewBundle(t, bundletest.Home, 1, p.ca)},
			)
			all := cost(func() { _, err = client.Fetch(t.Context(), e, "") })
			t.Logf("%s: %d KiB", bundle.Reason(err), all>>10)
			require.Equal(t, test.want, bundle.Reason(err), "%v", err)
			require.Less(t, all, uint64(mostMemory))
		})
	}
}

func namesOf(n int) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for range n {
			c.Subject.ExtraNames = append(
				c.Subject.ExtraNames,
				pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{1, 2}, Value: "x"},
			)
		}
	}
}

func stringOf(tag, n int) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{
			Type: asn1.ObjectIdentifier{1, 2}, Value: asn1.RawValue{Tag: tag, Bytes: bytes.Repeat([]byte{'x'}, n)},
		})
	}
}

func urisOf(n int) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for range n {
			c.URIs = append(c.URIs, &url.URL{Scheme: "a", Opaque: "b"})
		}
	}
}

func extensionsOf(n int) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for i := range n {
			c.ExtraExtensions = append(
				c.ExtraExtensions,
				pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, i}, Value: []byte{5, 0}},
			)
		}
	}
}

// manyMembers are as many as one object may have, their names escaped.
var manyMembers = func() string {
	var b strings.Builder
	for i := range 1024 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"\u%04x":0`, 0x100+i)
	}
	return b.String()
}()

// TestMemoryOfStatements: and so do the worst documents beside a bundle.
func TestMemoryOfStatements(t *testing.T) {
	const most = statement.MaxListBytes
	key := bundletest.NewKey(t)
	next := make(map[string]*ecdsa.PublicKey)
	for i := range 256 {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		next[fmt.Sprint(i)] = &k.PublicKey
	}
	next["0"] = &key.PublicKey
	var full []string
	for n := uint64(1); ; n++ {
		s, err := statement.New(
			statement.Claims{
				TrustDomain: bundletest.Home,
				Sequence:    n,
				Issued:      time.Unix(1, 0),
				Start:       statement.StartFirst,
				Next:        next,
			},
			"0",
			func([]byte) ([]byte, error) {
				return make([]byte, 64), nil // whether it verifies is another's question
			},
		)
		require.NoError(t, err)
		full = append(full, s.String())
		if len(full)*len(s.String()) > most {
			break
		}
	}
	enc := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	members, err := json.Marshal(
		enc(`{"alg":"ES256","kid":"k","typ":"`+statement.Type+`"}`) + "." + enc(`{`+manyMembers+`}`) + "." + enc("x"),
	)
	require.NoError(t, err)
	const first = `{"trust_domain":"eu.example.org","statements":[`
	for _, test := range []struct {
		name     string
		document []byte
		want     string
	}{
		{"statements that name many keys", statement.MarshalList(bundletest.Home, full), "ok"},
		{"tiny statements", filled(most, first, `"",`, `""]}`), "bad_statement"},
		{"members without meaning", counted(most, `{`, func(i int) string { return fmt.Sprintf(`"%x":0,`, i) },
			`"x":0}`), "too_many_members"},
		{"one long statement", filled(most, first+`"`, `.`, `"]}`), "bad_statement"},
		{"a statement of escapes", filled(most, first+`"`, `\u002e`, `"]}`), "bad_statement"},
		{"a statement of members without meaning", []byte(first + string(members) + `]}`), "bad_statement"},
		{"nested lists", filled(most, first, `[`, ``), "malformed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.LessOrEqual(t, len(test.document), most)
			p := newPeer(
				t,
				func(ca bundletest.Authority) *tls.Certificate { return ca.SVID(t, bundletest.EndpointID.String()) },
				func(w http.ResponseWriter, _ *http.Request) {
					_, _ = io.Copy(w, bytes.NewReader(test.document))
				},
			)
			e, err := endpoint.NewSPIFFE(bundletest.Home, p.url("/"), bundletest.EndpointID)
			require.NoError(t, err)
			client := endpoint.NewClient(
				endpoint.ClientConfig{Bundles: bundletest.NewBundle(t, bundletest.Home, 1, p.ca)},
			)
			all := cost(func() { _, err = client.FetchStatements(t.Context(), e, 0) })
			t.Logf("%s: %d KiB", bundle.Reason(err), all>>10)
			require.Equal(t, test.want, bundle.Reason(err), "%v", err)
			require.Less(t, all, uint64(mostMemory))
		})
	}
}

// TestMemoryOfAMap: reading a map of a document's size costs what reading a document does.
func TestMemoryOfAMap(t *testing.T) {
	const most = bundle.MaxDocumentBytes
	for _, test := range []struct {
		name     string
		document []byte
		want     string
	}{
		{"tiny bundles, a quarter of what there may be", counted(96<<10, `{"trust_domains":{`,
			func(i int) string { return fmt.Sprintf(`"%x":{"keys":[]},`, i) }, `"x":{"keys":[]}}}`), "ok"},
		{"members without meaning", counted(most, `{`, func(i int) string { return fmt.Sprintf(`"%x":0,`, i) },
			`"x":0}`), "too_large"},
		{"one domain again and again", filled(most, `{"trust_domains":{`, `"a":{"keys":[]},`, `"a":{"keys":[]}}}`),
			"duplicate_name"},
		{"tiny keys", filled(most, `{"trust_domains":{"a":{"keys":[`, `{},`, `{}]}}}`), "too_many_keys"},
		{"bundles that are none", counted(most, `{"trust_domains":{`, func(i int) string {
			return fmt.Sprintf(`"%x":0,`,
				i)
		}, `"x":0}}`), "malformed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var err error
			var bundles []*bundle.Bundle
			all := cost(func() {
				r := bytes.NewReader(test.document)
				_, err = bundle.ReadMap(r, func(td spiffeid.TrustDomain, document []byte) error {
					b, _, err := bundle.ParseMapped(td, document)
					bundles = append(bundles, b)
					return err
				})
			})
			t.Logf("%s: %d KiB", bundle.Reason(err), all>>10)
			require.Equal(t, test.want, bundle.Reason(err), "%v", err)
			require.Less(t, all, uint64(mostMemory))
		})
	}
}
