package statement_test

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle/internal/bundletest"
	"github.com/ententehq/entente/bundle/statement"
)

func TestStatementRoundTrip(t *testing.T) {
	c := bundletest.NewChain(t)
	first := c.Add(7, "a", "a", "b")
	claims := c.Claims(8, "b")
	second := c.Sign(claims, "b")
	require.Equal(t, claims, second.Claims())
	require.NoError(t, second.Continues(first))
	require.NoError(t, second.VerifiedBy(map[string]crypto.PublicKey{"b": &c.Key("b").PublicKey}))
	require.True(t, first.Starts())
	again := c.Sign(claims, "b")
	require.NotEqual(t, second.String(), again.String(), "signatures are random")
	require.Equal(t, second.Digest(), again.Digest(), "and have no part in the digest")
	read, err := statement.Parse(second.String())
	require.NoError(t, err)
	require.Equal(t, second, read)
}

func TestContinues(t *testing.T) {
	c := bundletest.NewChain(t)
	first := c.Add(7, "a", "a")
	for _, test := range []struct {
		name   string
		change func(*statement.Claims)
		kid    string
		is     error
		text   string
	}{
		{"the next", func(*statement.Claims) {}, "a", nil, ""},
		{"a leap", func(x *statement.Claims) { x.Sequence = 1 << 20 }, "a", nil, ""},
		{"another domain", func(x *statement.Claims) {
			x.TrustDomain = spiffeid.RequireTrustDomainFromString("x.test")
		}, "a", statement.ErrLink,
			"the statement does not continue the one before: it is on x.test, the one before on eu.example.org"},
		{"backwards", func(x *statement.Claims) { x.Sequence = 7 }, "a", statement.ErrLink,
			"the statement does not continue the one before: sequence 7 does not come after 7"},
		{"a new chain", func(x *statement.Claims) { x.Start, x.Previous = statement.StartNoSigner, [32]byte{} }, "a",
			statement.ErrLink,
			"the statement does not continue the one before: the chain starts again at sequence 8 (no_signer)"},
		{"behind another", func(x *statement.Claims) { x.Previous[0]++ }, "a", statement.ErrLink,
			"the statement does not continue the one before: that of sequence 8 names another statement before it " +
				"than that of sequence 7"},
		{"a key of its own", func(x *statement.Claims) { x.Next["b"] = &c.Key("b").PublicKey }, "b",
			statement.ErrSigner,
			`the statement is signed by a key that may not sign it: key "b"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			claims := c.Claims(8, "a")
			test.change(&claims)
			err := c.Sign(claims, test.kid).Continues(first)
			require.ErrorIs(t, err, test.is)
			if test.is != nil {
				require.EqualError(t, err, test.text)
			}
		})
	}
	forger := bundletest.NewChain(t)
	forger.List = slices.Clip(c.List)
	require.ErrorIs(t, forger.Add(8, "a", "a").Continues(first), statement.ErrSignature, "a key of the same name")
}

func TestParseStatementRefuses(t *testing.T) {
	c := bundletest.NewChain(t)
	good := c.Add(7, "a", "a").String()
	parts := strings.Split(good, ".")
	part := func(i int) string {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		require.NoError(t, err)
		return string(b)
	}
	with := func(i int, text string) string {
		changed := append([]string{}, parts...)
		changed[i] = base64.RawURLEncoding.EncodeToString([]byte(text))
		return strings.Join(changed, ".")
	}
	header := func(old, new string) string { return with(0, strings.Replace(part(0), old, new, 1)) }
	payload := func(old, new string) string { return with(1, strings.Replace(part(1), old, new, 1)) }
	for name, test := range map[string]struct{ compact, text string }{
		"two parts":       {parts[0] + "." + parts[1], "it has 2 parts; a JWS in compact serialization has 3"},
		"too large":       {strings.Repeat("a", statement.MaxBytes+1), "it has 49153 bytes, at most 49152 are allowed"},
		"padding":         {good + "=", "part 3: it is not base64url without padding"},
		"no algorithm":    {header("ES256", "none"), `alg is "none"; ES256 alone is allowed`},
		"a shared secret": {header("ES256", "HS256"), `alg is "HS256"; ES256 alone is allowed`},
		"another type": {header(statement.Type, "JWT"),
			`typ is "JWT"; that of a statement is entente-statement+jws`},
		"a key inside": {header(`{`, `{"jwk":{},`), "its header has 4 members; alg, kid, typ are allowed"},
		"alg twice": {header(`{`, `{"alg":"ES256",`),
			`two members of the same name: its header has "alg" twice`},
		"sequence twice": {payload(`{`, `{"sequence":1,`), `two members`},
		"a fraction": {payload(`"sequence":7`, `"sequence":7.5`),
			`the sequence is not a whole number of at most 64 bits: it is "7.5"`},
		"neither": {payload(`"start":"first",`, ``), "it has one of previous and start"},
		"both": {payload(`"start"`, `"previous":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","start"`),
			"it has one of previous and start"},
		"a short digest": {payload(`"keys":"`, `"keys":"AA","x":"`), "keys is not a SHA-256 in base64url"},
		"a long reason":  {payload(`"first"`, `"`+strings.Repeat("x", 33)+`"`), "it is a word of lower-case letters"},
		"a key off curve": {payload(`"a":"`, `"a":"`+strings.Repeat("A", 86)+`","b":"`),
			`key "a" in next is not on P-256`},
		"a negative time":  {payload(`"iat":`, `"iat":-`), "it is a whole number of seconds"},
		"short signature":  {parts[0] + "." + parts[1] + ".AAAA", "its signature has 3 bytes; one of ES256 has 64"},
		"too many signers": {with(1, manySigners()), "next has 257 keys, at most 256 are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := statement.Parse(test.compact)
			require.ErrorIs(t, err, statement.ErrInvalid)
			require.ErrorContains(t, err, test.text)
		})
	}
	_, err := statement.Parse(payload(`{`, `{"later":[],`))
	require.NoError(t, err, "a member that a later version adds is passed over; the signature is another matter")
}

func manySigners() string {
	next := map[string]string{}
	for i := range 257 {
		next[strings.Repeat("k", i+1)[:min(i+1, 200)]+string(rune('a'+i%26))+string(rune('a'+i/26))] = ""
	}
	b, _ := json.Marshal(next)
	return `{"trust_domain":"a","sequence":1,"keys":"` + strings.Repeat(
		"A",
		43,
	) + `","start":"first","iat":1,"next":` + string(
		b,
	) + `}`
}

func TestNewStatementRefuses(t *testing.T) {
	c := bundletest.NewChain(t)
	_, err := statement.New(c.Claims(1, "a"), "a", func([]byte) ([]byte, error) { return nil, errors.New("no key") })
	require.EqualError(t, err, "sign the statement on sequence 1 of eu.example.org: no key")
}

func TestParseStatements(t *testing.T) {
	c := bundletest.NewChain(t)
	c.Add(7, "a", "a")
	c.Add(8, "a", "a")
	one, two := c.List[0].String(), c.List[1].String()
	document := statement.MarshalList(bundletest.ChainDomain, []string{one, two})
	read, err := statement.ParseList(bundletest.ChainDomain, document)
	require.NoError(t, err)
	require.Equal(t, c.List, read)
	for name, test := range map[string]struct{ document, text string }{
		"out of order": {string(statement.MarshalList(bundletest.ChainDomain, []string{two, one})),
			"sequence 7 does not come after 8"},
		"another domain": {`{"trust_domain":"x.test","statements":[]}`, `they are on "x.test"`},
		"no list":        {`{"trust_domain":"eu.example.org"}`, "statements is nothing, not an array"},
		"a list twice": {`{"trust_domain":"eu.example.org","statements":[],"statements":[]}`,
			`has "statements" twice`},
		"not a string": {`{"trust_domain":"eu.example.org","statements":[1]}`,
			"a statement is a number, not a string"},
		"too many": {`{"trust_domain":"eu.example.org","statements":["` + strings.Repeat(`","`, 100) + `"]}`,
			"is not a statement"},
		"too large": {strings.Repeat(" ", statement.MaxListBytes+1), "at most 524288 are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := statement.ParseList(bundletest.ChainDomain, []byte(test.document))
			require.ErrorContains(t, err, test.text)
		})
	}
	long := strings.Repeat("a", 100<<10)
	require.Less(
		t,
		len(statement.MarshalList(bundletest.ChainDomain, []string{long, long, long, long, long, long, long})),
		statement.MaxListBytes,
	)
}

func FuzzParseStatement(f *testing.F) {
	c := bundletest.NewChain(f)
	f.Add(c.Add(1, "a", "a", "b").String())
	f.Add(c.Add(2, "b", "b").String())
	f.Add("e30.e30.")
	f.Fuzz(func(t *testing.T, compact string) {
		s, err := statement.Parse(compact)
		if err != nil {
			require.ErrorIs(t, err, statement.ErrInvalid)
			return
		}
		require.Equal(t, compact, s.String(), "there is one spelling")
		again, err := statement.New(
			s.Claims(),
			s.KeyID(),
			func([]byte) ([]byte, error) { return make([]byte, 64), nil },
		)
		require.NoError(t, err, "what can be read can be written")
		require.Equal(t, s.Claims(), again.Claims())
	})
}
