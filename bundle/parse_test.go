package bundle_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

// keyText writes a JWK from alternating names and values, the values being JSON.
func keyText(members ...string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := 0; i < len(members); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%s", members[i], members[i+1])
	}
	b.WriteByte('}')
	return b.String()
}

func quoted(s string) string { return `"` + s + `"` }

func x5c(certs ...bundletest.Authority) string {
	var list []string
	for _, c := range certs {
		list = append(list, base64.StdEncoding.EncodeToString(c.Cert.Raw))
	}
	text, _ := json.Marshal(list)
	return string(text)
}

func TestParseTolerantly(t *testing.T) {
	ca, other := bundletest.NewAuthority(t, bundletest.Home), bundletest.NewAuthority(t, bundletest.Home)
	x, y := bundletest.ECMembers(t, &bundletest.NewKey(t).PublicKey)
	jwtKey := func(kid string) string {
		return keyText(
			"kty",
			`"EC"`,
			"use",
			`"jwt-svid"`,
			"kid",
			quoted(kid),
			"crv",
			`"P-256"`,
			"x",
			quoted(x),
			"y",
			quoted(y),
		)
	}
	x509Key := keyText("kty", `"EC"`, "use", `"x509-svid"`, "x5c", x5c(ca))
	leaf := ca.SVID(t, "spiffe://eu.example.org/leaf")

	for _, test := range []struct {
		name      string
		document  string
		x509, jwt int
		ignored   []string
	}{
		{"no key at all", `{"keys":[]}`, 0, 0, nil},
		{"both uses", `{"keys":[` + x509Key + `,` + jwtKey("a") + `]}`, 1, 1, nil},
		{"unknown parameters", `{"issuer":{"keys":1,"keys":2},"keys":[]}`, 0, 0,
			[]string{`unknown parameter "issuer" (parameter)`}},
		{"names are case-sensitive", `{"Keys":1,"keys":[]}`, 0, 0, []string{`unknown parameter "Keys" (parameter)`}},
		{"unknown kty", `{"keys":[` + keyText("kty", `"AKP"`, "use", `"x509-svid"`, "x5c", `17`) + `,` + jwtKey("a") +
			`]}`, 0, 1,
			[]string{`key 0: kty "AKP" is not known (key_type)`}},
		{"no kty", `{"keys":[{"use":"x509-svid"}]}`, 0, 0, []string{`key 0: no kty (key_type)`}},
		{"no use", `{"keys":[{"kty":"EC"}]}`, 0, 0, []string{`key 0: no use (use)`}},
		{"another use", `{"keys":[{"kty":"EC","use":"wit-svid"},{"kty":"EC","use":"sig"}]}`, 0, 0, []string{
			`key 0: no kid (no_key_id)`,
			`key 1: use "sig" is not x509-svid, jwt-svid or wit-svid (use)`}},
		{"use is case-sensitive", `{"keys":[{"kty":"EC","use":"JWT-SVID"}]}`, 0, 0,
			[]string{`key 0: use "JWT-SVID" is not x509-svid, jwt-svid or wit-svid (use)`}},
		{"no x5c", `{"keys":[{"kty":"EC","use":"x509-svid"}]}`, 0, 0, []string{`key 0: no x5c (no_certificate)`}},
		{"empty x5c", `{"keys":[{"kty":"EC","use":"x509-svid","x5c":[]}]}`, 0, 0,
			[]string{`key 0: x5c is empty (no_certificate)`}},
		{"the first certificate counts", `{"keys":[` + keyText("kty", `"EC"`, "use", `"x509-svid"`, "x5c", x5c(ca,
			other)) + `]}`, 1, 0,
			[]string{`key 0: x5c has 2 certificates, the first counts (more_certificates)`}},
		{"a kid on an x509-svid key", `{"keys":[` + keyText("kty", `"EC"`, "kid", `"k"`, "use", `"x509-svid"`, "x5c",
			x5c(ca)) + `]}`, 1, 0, nil},
		{"not a CA", `{"keys":[` + keyText("kty", `"EC"`, "use", `"x509-svid"`, "x5c",
			x5c(bundletest.Authority{Cert: leaf.Leaf})) + `]}`, 0, 0,
			[]string{`key 0: certificate of "CN=leaf": it is not a CA certificate (unusable)`}},
		{"the same certificate twice", `{"keys":[` + x509Key + `,` + x509Key + `]}`, 1, 0,
			[]string{`key 1: certificate of "CN=authority of eu.example.org" occurs twice (duplicate)`}},
		{"no kid", `{"keys":[` + keyText("kty", `"EC"`, "use", `"jwt-svid"`, "crv", `"P-256"`, "x", quoted(x), "y",
			quoted(y)) + `]}`, 0, 0,
			[]string{`key 0: no kid (no_key_id)`}},
		{"the same JWT key twice", `{"keys":[` + jwtKey("a") + `,` + jwtKey("a") + `,` + jwtKey("b") + `]}`, 0, 2,
			[]string{`key 1: kid "a" occurs twice with the same key (duplicate)`}},
		{"a curve that JWT-SVIDs do not have",
			`{"keys":[{"kty":"EC","use":"jwt-svid","kid":"k","crv":"secp256k1","x":"AA","y":"AA"}]}`, 0, 0,
			[]string{`key 0: kid "k": unusable key: curve "secp256k1" (unusable)`}},
		{"a missing coordinate", `{"keys":[{"kty":"EC","use":"jwt-svid","kid":"k","crv":"P-256","x":` + quoted(x) +
			`}]}`, 0, 0,
			[]string{`key 0: kid "k": unusable key: no y (unusable)`}},
		{"Ed25519 signs no JWT-SVID", `{"keys":[{"kty":"OKP","use":"jwt-svid","kid":"k","crv":"Ed25519","x":"` +
			strings.Repeat("A", 43) + `"}]}`, 0, 0,
			[]string{`key 0: kid "k": keys of type ed25519.PublicKey do not verify JWT-SVIDs (unusable)`}},
		{"a short RSA key", `{"keys":[{"kty":"RSA","use":"jwt-svid","kid":"k","n":"_w","e":"AQAB"}]}`, 0, 0,
			[]string{`key 0: kid "k": unusable key: RSA key of 8 bits; 2048 to 8192 are supported (unusable)`}},
		{"white space", " {\n\"keys\" :\t[ ] }\r\n", 0, 0, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, ignored, err := bundle.Parse(bundletest.Home, []byte(test.document))
			require.NoError(t, err)
			require.Len(t, b.X509Authorities(), test.x509)
			require.Len(t, b.JWTAuthorities(), test.jwt)
			var texts []string
			for _, i := range ignored {
				texts = append(texts, i.String())
			}
			require.Equal(t, test.ignored, texts)
			require.Equal(t, test.x509+test.jwt == 0, b.Empty())
		})
	}
}

func TestParseRefusals(t *testing.T) {
	x, y := bundletest.ECMembers(t, &bundletest.NewKey(t).PublicKey)
	x2, y2 := bundletest.ECMembers(t, &bundletest.NewKey(t).PublicKey)
	jwtKey := func(x, y string) string {
		return keyText(
			"kty",
			`"EC"`,
			"use",
			`"jwt-svid"`,
			"kid",
			`"a"`,
			"crv",
			`"P-256"`,
			"x",
			quoted(x),
			"y",
			quoted(y),
		)
	}

	for _, test := range []struct {
		name, document, reason, text string
	}{
		{"nothing", ``, "malformed", "the document is malformed: it is not JSON, byte 0: unexpected end of JSON input"},
		{"cut short", `{"keys":[`, "malformed",
			"the document is malformed: it is not JSON, byte 9: unexpected end of JSON input"},
		{"something behind the end", `{"keys":[]} {}`, "malformed",
			"the document is malformed: it is not JSON, byte 13: invalid character '{' after top-level value"},
		{"not UTF-8", "{\"keys\":[],\"a\":\"\xff\"}", "malformed", "the document is malformed: it is not valid UTF-8"},
		{"a byte order mark", "\ufeff{\"keys\":[]}", "malformed",
			"the document is malformed: it is not JSON, byte 1: invalid character 'ï' looking for beginning of value"},
		{"not an object", `[]`, "malformed", "the document is malformed: the document is an array, not an object"},
		{"null", `null`, "malformed", "the document is malformed: the document is null, not an object"},
		{"an empty object", `{}`, "no_keys",
			"the document has no list of keys: keys must be present; an empty list means that no key is trusted"},
		{"null keys", `{"keys":null}`, "no_keys",
			"the document has no list of keys: keys must be present; an empty list means that no key is trusted"},
		{"keys are no list", `{"keys":{}}`, "malformed", "the document is malformed: keys is an object, not an array"},
		{"keys twice", `{"keys":[],"keys":[]}`, "duplicate_name",
			`a JSON object has two members of the same name: the document has "keys" twice`},
		{"keys twice, one escaped", `{"keys":[],"\u006beys":[]}`, "duplicate_name",
			`a JSON object has two members of the same name: the document has "keys" twice`},
		{"kty twice", `{"keys":[{"kty":"EC","kty":"RSA"}]}`, "duplicate_name",
			`key 0: a JSON object has two members of the same name: the element has "kty" twice`},
		{"too many keys", `{"keys":[` + strings.Repeat(`{},`, 1024) + `{}]}`, "too_many_keys",
			"the document has more keys than allowed: keys has more than 1024 elements"},
		{"too large", `{"keys":[],"a":"` + strings.Repeat("a", 1<<20) + `"}`, "too_large",
			"the document is larger than allowed: it has 1048594 bytes, at most 1048576 are allowed"},
		{"a negative sequence", `{"keys":[],"spiffe_sequence":-1}`, "bad_sequence",
			`the sequence is not a whole number of at most 64 bits: spiffe_sequence is "-1"`},
		{"a fraction", `{"keys":[],"spiffe_sequence":1.0}`, "bad_sequence",
			`the sequence is not a whole number of at most 64 bits: spiffe_sequence is "1.0"`},
		{"an exponent", `{"keys":[],"spiffe_sequence":1e3}`, "bad_sequence",
			`the sequence is not a whole number of at most 64 bits: spiffe_sequence is "1e3"`},
		{"a sequence of 65 bits", `{"keys":[],"spiffe_sequence":18446744073709551616}`, "bad_sequence",
			`the sequence is not a whole number of at most 64 bits: spiffe_sequence is "18446744073709551616"`},
		{"a sequence in quotes", `{"keys":[],"spiffe_sequence":"1"}`, "bad_sequence",
			`the sequence is not a whole number of at most 64 bits: spiffe_sequence is "\"1\""`},
		{"a null sequence", `{"keys":[],"spiffe_sequence":null}`, "bad_sequence",
			`the sequence is not a whole number of at most 64 bits: spiffe_sequence is "null"`},
		{"a hint with a fraction", `{"keys":[],"spiffe_refresh_hint":0.5}`, "bad_refresh_hint",
			`the refresh hint is not a whole number of seconds: spiffe_refresh_hint is "0.5"`},
		{"two keys of one kid", `{"keys":[` + jwtKey(x, y) + `,` + jwtKey(x2, y2) + `]}`, "duplicate_kid",
			`key 1: two different keys of one use have the same kid: "a"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, ignored, err := bundle.Parse(bundletest.Home, []byte(test.document))
			require.EqualError(t, err, "bundle document of eu.example.org: "+test.text)
			require.Equal(t, test.reason, bundle.Reason(err))
			require.Nil(t, b)
			require.Nil(t, ignored)
		})
	}
}

// TestBrokenKeyCostsNoOther: whatever is wrong with one key, the others of the document count. It is listed and
// counted.
func TestBrokenKeyCostsNoOther(t *testing.T) {
	ca, other := bundletest.NewAuthority(t, bundletest.Home), bundletest.NewAuthority(t, bundletest.Home)
	x, y := bundletest.ECMembers(t, &bundletest.NewKey(t).PublicKey)
	_, y2 := bundletest.ECMembers(t, &bundletest.NewKey(t).PublicKey)
	cx, cy := bundletest.ECMembers(t, other.Cert.PublicKey.(*ecdsa.PublicKey))
	good := keyText("kty", `"EC"`, "use", `"x509-svid"`, "x5c", x5c(ca))
	der := base64.StdEncoding.EncodeToString(ca.Cert.Raw)
	x509Key := func(x5c string) string { return keyText("kty", `"EC"`, "use", `"x509-svid"`, "x5c", x5c) }
	jwtKey := func(x, y string) string {
		return keyText("kty", `"EC"`, "use", `"jwt-svid"`, "kid", `"a"`, "crv", `"P-256"`, "x", quoted(x), "y",
			quoted(y))
	}
	// A serial number whose first bit is set and that has no zero before it is negative. Go refuses to parse that.
	head := []byte{0xa0, 3, 2, 1, 2, 2, 1} // the version, and the serial number of one byte after it
	at := bytes.Index(other.Cert.Raw, head) + len(head)
	require.Greater(t, at, len(head))
	negative := bytes.Clone(other.Cert.Raw)
	negative[at] |= 0x80
	const malformed = "the key is malformed: "
	for _, test := range []struct{ name, key, ignored string }{
		{"no object", `null`, "it is null, not an object"},
		{"a number", `17`, "it is a number, not an object"},
		{"kty is no string", `{"kty":1}`, "the document is malformed: kty is a number, not a string"},
		{"use is no string", `{"kty":"EC","use":[]}`, "the document is malformed: use is an array, not a string"},
		{"kid is no string", `{"kty":"EC","use":"jwt-svid","kid":{}}`,
			"the document is malformed: kid is an object, not a string"},
		{"x5c is no list", x509Key(`"x"`), "the document is malformed: x5c is a string, not an array"},
		{"x5c of numbers", x509Key(`[1]`), "the document is malformed: x5c[0] is a number, not a string"},
		{"x5c of too many", x509Key(`[` + strings.Repeat(`"",`, 1024) + `""]`), malformed +
			"x5c has more than 1024 elements"},
		{"x5c in base64url", x509Key(`["_-__"]`), malformed + "x5c is not base64 with padding"},
		{"x5c with a line break", x509Key(`["` + der[:64] + `\n` + der[64:] + `"]`), malformed +
			"x5c is not base64: it has line breaks"},
		{"x5c with no certificate", x509Key(`["AAAA"]`), malformed +
			"x5c holds no certificate: x509: malformed certificate"},
		{"a negative serial number", x509Key(`["` + base64.StdEncoding.EncodeToString(negative) + `"]`), malformed +
			"x5c holds no certificate: x509: negative serial number"},
		{"a certificate of another key", keyText("kty", `"EC"`, "use", `"x509-svid"`, "crv", `"P-256"`, "x", quoted(cx),
			"y", quoted(cy), "x5c", x5c(ca)), malformed + "its members and its certificate hold different keys"},
		{"a point beside the curve", jwtKey(x, y2), `kid "a": ` + malformed + "the point is not on P-256"},
		{"a padded coordinate", jwtKey(x+"=", y), `kid "a": ` + malformed + "x is not base64url without padding"},
		{"a short coordinate", jwtKey("AAAA", y), `kid "a": ` + malformed +
			"x has 3 bytes, P-256 has coordinates of 32"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, ignored, err := bundle.Parse(bundletest.Home, []byte(`{"keys":[`+test.key+`,`+good+`]}`))
			require.NoError(t, err)
			require.Equal(t, []*x509Certificate{ca.Cert}, b.X509Authorities())
			require.Len(t, ignored, 1)
			require.Equal(t, "key 0: "+test.ignored+" (unusable)", ignored[0].String())
			require.Equal(t, 1, b.LeftOut())
		})
	}
}

// TestLeftOutCountsKeysForSVIDs: keys of other uses and parameters are no loss.
func TestLeftOutCountsKeysForSVIDs(t *testing.T) {
	for keys, want := range map[string]int{
		``:                               0,
		`{"kty":"EC","use":"wit-svid"}`:  0,
		`{"kty":"AKP","use":"wit-svid"}`: 0,
		`{"kty":"EC","use":"wit-svid","kid":"w","crv":"P-256","x":"!","y":"!"}`: 0,
		`{"kty":"AKP","use":"x509-svid"}`:                                       1,
		`{"use":"jwt-svid"}`:                                                    1,
		`{"kty":"EC","use":"jwt-svid"},{"kty":"EC"}`:                            1,
		`7,{"kty":"EC","use":"x509-svid"}`:                                      2,
	} {
		b, _, err := bundle.Parse(bundletest.Home, []byte(`{"keys":[`+keys+`]}`))
		require.NoError(t, err)
		require.Equal(t, want, b.LeftOut(), keys)
		next, err := b.WithSequence(7)
		require.NoError(t, err)
		require.Equal(t, want, next.LeftOut())
		require.Equal(t, uint32(want), b.Row(time.Now()).GetIgnoredKeys())
	}
}

func TestParseSequenceAndHint(t *testing.T) {
	parse := func(text string) *bundle.Bundle {
		b, _, err := bundle.Parse(bundletest.Home, []byte(text))
		require.NoError(t, err)
		return b
	}
	b := parse(`{"keys":[]}`)
	_, ok := b.Sequence()
	require.False(t, ok, "absent is not zero")
	_, ok = b.RefreshHint()
	require.False(t, ok)

	b = parse(`{"keys":[],"spiffe_sequence":0,"spiffe_refresh_hint":0}`)
	n, ok := b.Sequence()
	require.True(t, ok)
	require.Zero(t, n)
	d, ok := b.RefreshHint()
	require.True(t, ok)
	require.Zero(t, d)

	b = parse(`{"keys":[],"spiffe_sequence":18446744073709551615,"spiffe_refresh_hint":300}`)
	n, _ = b.Sequence()
	require.Equal(t, uint64(1<<64-1), n, "no bit of 64 is lost")
	d, _ = b.RefreshHint()
	require.Equal(t, 5*time.Minute, d)
	require.Equal(
		t,
		`{"spiffe_sequence":18446744073709551615,"spiffe_refresh_hint":300,"keys":[]}`,
		string(b.Marshal()),
	)

	d, _ = parse(`{"keys":[],"spiffe_refresh_hint":99999999999999999999999}`).RefreshHint()
	require.Equal(t, 9223372036*time.Second, d)
}

func TestNewRefusals(t *testing.T) {
	ca := bundletest.NewAuthority(t, bundletest.Home)
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	leaf := ca.SVID(t, "spiffe://eu.example.org/x").Leaf
	for _, test := range []struct {
		name    string
		content bundle.Content
		text    string
	}{
		{"a leaf", bundle.Content{X509Authorities: append([]*x509Certificate{}, leaf)},
			`the key is malformed: X.509 authority "CN=leaf": it is not a CA certificate`},
		{"a nil certificate", bundle.Content{X509Authorities: []*x509Certificate{nil}},
			"the key is malformed: an X.509 authority is nil or was never signed"},
		{"no kid", bundle.Content{JWTAuthorities: keys{"": &bundletest.NewKey(t).PublicKey}},
			`the key is malformed: JWT authority "": its kid is empty`},
		{"a long kid", bundle.Content{JWTAuthorities: keys{strings.Repeat("k", 257): &bundletest.NewKey(t).PublicKey}},
			`the key is malformed: JWT authority "` + strings.Repeat("k", 64) +
				`"…: its kid has 257 bytes, at most 256 are allowed`},
		{"a small curve", bundle.Content{JWTAuthorities: keys{"k": &small.PublicKey}},
			`the key is malformed: JWT authority "k": its curve is not one of P-256, P-384 and P-521`},
		{"Ed25519 for JWT", bundle.Content{JWTAuthorities: keys{"k": bundletest.NewEd25519Key(t).Public()}},
			`the key is malformed: JWT authority "k": keys of type ed25519.PublicKey do not verify JWT-SVIDs`},
		{"half a second", bundle.Content{RefreshHint: new(500 * time.Millisecond)},
			"the refresh hint is not a whole number of seconds: it is 500ms"},
		{"a negative hint", bundle.Content{RefreshHint: new(-time.Second)},
			"the refresh hint is not a whole number of seconds: it is -1s"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := bundle.New(bundletest.Home, test.content)
			require.EqualError(t, err, "bundle of eu.example.org: "+test.text)
		})
	}
}
