package bundle_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
)

var chained = spiffeid.RequireTrustDomainFromString("eu.example.org")

// es256 signs as the authority room does.
func es256(key *ecdsa.PrivateKey) func([]byte) ([]byte, error) {
	return func(input []byte) ([]byte, error) {
		sum := sha256.Sum256(input)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			return nil, err
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), nil
	}
}

// chain makes statements, each after the one before.
type chain struct {
	t    testing.TB
	keys map[string]*ecdsa.PrivateKey
	list []*bundle.Statement
}

func newChain(t testing.TB) *chain { return &chain{t: t, keys: map[string]*ecdsa.PrivateKey{}} }

func (c *chain) key(kid string) *ecdsa.PrivateKey {
	if c.keys[kid] == nil {
		c.keys[kid] = newKey(c.t)
	}
	return c.keys[kid]
}

// claims continues the newest statement, or starts a chain.
func (c *chain) claims(sequence uint64, next ...string) bundle.Claims {
	claims := bundle.Claims{TrustDomain: chained, Sequence: sequence, Keys: sha256.Sum256([]byte{byte(sequence)}), Issued: time.Unix(1_800_000_000, 0).UTC(),
		Next: map[string]*ecdsa.PublicKey{}}
	for _, kid := range next {
		claims.Next[kid] = &c.key(kid).PublicKey
	}
	if n := len(c.list); n > 0 {
		claims.Previous = c.list[n-1].Digest()
	} else {
		claims.Start = bundle.StartFirst
	}
	return claims
}

func (c *chain) sign(claims bundle.Claims, kid string) *bundle.Statement {
	s, err := bundle.NewStatement(claims, kid, es256(c.key(kid)))
	require.NoError(c.t, err)
	return s
}

func (c *chain) add(sequence uint64, kid string, next ...string) *bundle.Statement {
	s := c.sign(c.claims(sequence, next...), kid)
	c.list = append(c.list, s)
	return s
}

func TestStatementSaysWhatItWasMadeOf(t *testing.T) {
	c := newChain(t)
	first := c.add(7, "a", "a", "b")
	claims := c.claims(8, "b")
	second := c.sign(claims, "b")
	require.Equal(t, claims, second.Claims())
	require.NoError(t, second.Continues(first))
	require.NoError(t, second.VerifiedBy(map[string]crypto.PublicKey{"b": &c.key("b").PublicKey}))
	require.True(t, first.Starts())
	again := c.sign(claims, "b")
	require.NotEqual(t, second.String(), again.String(), "signatures are random")
	require.Equal(t, second.Digest(), again.Digest(), "and have no part in the digest")
	read, err := bundle.ParseStatement(second.String())
	require.NoError(t, err)
	require.Equal(t, second, read)
}

func TestContinues(t *testing.T) {
	c := newChain(t)
	first := c.add(7, "a", "a")
	for _, test := range []struct {
		name   string
		change func(*bundle.Claims)
		kid    string
		is     error
		text   string
	}{
		{"the next", func(*bundle.Claims) {}, "a", nil, ""},
		{"a leap", func(x *bundle.Claims) { x.Sequence = 1 << 20 }, "a", nil, ""},
		{"another domain", func(x *bundle.Claims) { x.TrustDomain = spiffeid.RequireTrustDomainFromString("x.test") }, "a", bundle.ErrStatementLink,
			"the statement does not continue the one before: it is on x.test, the one before on eu.example.org"},
		{"backwards", func(x *bundle.Claims) { x.Sequence = 7 }, "a", bundle.ErrStatementLink, "the statement does not continue the one before: sequence 7 does not come after 7"},
		{"anew", func(x *bundle.Claims) { x.Start, x.Previous = bundle.StartNoSigner, [32]byte{} }, "a", bundle.ErrStatementLink,
			"the statement does not continue the one before: a chain starts anew at sequence 8 (no_signer)"},
		{"behind another", func(x *bundle.Claims) { x.Previous[0]++ }, "a", bundle.ErrStatementLink,
			"the statement does not continue the one before: that of sequence 8 names another statement before it than that of sequence 7"},
		{"a key of its own", func(x *bundle.Claims) { x.Next["b"] = &c.key("b").PublicKey }, "b", bundle.ErrStatementSigner,
			`the statement is signed by a key that may not sign it: key "b"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			claims := c.claims(8, "a")
			test.change(&claims)
			err := c.sign(claims, test.kid).Continues(first)
			require.ErrorIs(t, err, test.is)
			if test.is != nil {
				require.EqualError(t, err, test.text)
			}
		})
	}
	forger := newChain(t)
	forger.list = slices.Clip(c.list)
	require.ErrorIs(t, forger.add(8, "a", "a").Continues(first), bundle.ErrStatementSignature, "a key of the same name")
}

func TestParseStatementRefuses(t *testing.T) {
	c := newChain(t)
	good := c.add(7, "a", "a").String()
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
		"two parts":        {parts[0] + "." + parts[1], "it has 2 parts; a JWS in compact serialization has 3"},
		"too large":        {strings.Repeat("a", bundle.MaxStatementBytes+1), "it has 49153 bytes, at most 49152 are allowed"},
		"padding":          {good + "=", "part 3: it is not base64url without padding"},
		"no algorithm":     {header("ES256", "none"), `alg is "none"; ES256 alone is allowed`},
		"a shared secret":  {header("ES256", "HS256"), `alg is "HS256"; ES256 alone is allowed`},
		"another type":     {header(bundle.StatementType, "JWT"), `typ is "JWT"; that of a statement is entente-statement+jws`},
		"a key inside":     {header(`{`, `{"jwk":{},`), "its header has 4 members; alg, kid, typ are allowed"},
		"alg twice":        {header(`{`, `{"alg":"ES256",`), `two members of the same name: its header has "alg" twice`},
		"sequence twice":   {payload(`{`, `{"sequence":1,`), `two members`},
		"a fraction":       {payload(`"sequence":7`, `"sequence":7.5`), "spiffe_sequence is"},
		"neither":          {payload(`"start":"first",`, ``), "it has one of previous and start"},
		"both":             {payload(`"start"`, `"previous":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","start"`), "it has one of previous and start"},
		"a short digest":   {payload(`"keys":"`, `"keys":"AA","x":"`), "keys is not a SHA-256 in base64url"},
		"a long reason":    {payload(`"first"`, `"`+strings.Repeat("x", 33)+`"`), "it is a word of lower-case letters"},
		"a key off curve":  {payload(`"a":"`, `"a":"`+strings.Repeat("A", 86)+`","b":"`), `key "a" in next is not on P-256`},
		"a negative time":  {payload(`"iat":`, `"iat":-`), "it is a whole number of seconds"},
		"short signature":  {parts[0] + "." + parts[1] + ".AAAA", "its signature has 3 bytes; one of ES256 has 64"},
		"too many signers": {with(1, manySigners()), "next has 257 keys, at most 256 are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := bundle.ParseStatement(test.compact)
			require.ErrorIs(t, err, bundle.ErrStatement)
			require.ErrorContains(t, err, test.text)
		})
	}
	_, err := bundle.ParseStatement(payload(`{`, `{"later":[],`))
	require.NoError(t, err, "a member that a later version adds is passed over; the signature is another matter")
}

func manySigners() string {
	next := map[string]string{}
	for i := range 257 {
		next[strings.Repeat("k", i+1)[:min(i+1, 200)]+string(rune('a'+i%26))+string(rune('a'+i/26))] = ""
	}
	b, _ := json.Marshal(next)
	return `{"trust_domain":"a","sequence":1,"keys":"` + strings.Repeat("A", 43) + `","start":"first","iat":1,"next":` + string(b) + `}`
}

func TestNewStatementRefuses(t *testing.T) {
	c := newChain(t)
	_, err := bundle.NewStatement(c.claims(1, "a"), "a", func([]byte) ([]byte, error) { return nil, errors.New("no key") })
	require.EqualError(t, err, "sign the statement on sequence 1 of eu.example.org: no key")
}

func TestParseStatements(t *testing.T) {
	c := newChain(t)
	c.add(7, "a", "a")
	c.add(8, "a", "a")
	one, two := c.list[0].String(), c.list[1].String()
	document := bundle.MarshalStatements(chained, []string{one, two})
	read, err := bundle.ParseStatements(chained, document)
	require.NoError(t, err)
	require.Equal(t, c.list, read)
	for name, test := range map[string]struct{ document, text string }{
		"out of order":   {string(bundle.MarshalStatements(chained, []string{two, one})), "sequence 7 does not come after 8"},
		"another domain": {`{"trust_domain":"x.test","statements":[]}`, `they are on "x.test"`},
		"no list":        {`{"trust_domain":"eu.example.org"}`, "statements is nothing, not an array"},
		"a list twice":   {`{"trust_domain":"eu.example.org","statements":[],"statements":[]}`, `has "statements" twice`},
		"not a string":   {`{"trust_domain":"eu.example.org","statements":[1]}`, "a statement is a number, not a string"},
		"too many":       {`{"trust_domain":"eu.example.org","statements":["` + strings.Repeat(`","`, 100) + `"]}`, "is not a statement"},
		"too large":      {strings.Repeat(" ", bundle.MaxStatementsBytes+1), "at most 524288 are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := bundle.ParseStatements(chained, []byte(test.document))
			require.ErrorContains(t, err, test.text)
		})
	}
	long := strings.Repeat("a", 100<<10)
	require.Less(t, len(bundle.MarshalStatements(chained, []string{long, long, long, long, long, long, long})), bundle.MaxStatementsBytes)
}

func FuzzParseStatement(f *testing.F) {
	c := newChain(f)
	f.Add(c.add(1, "a", "a", "b").String())
	f.Add(c.add(2, "b", "b").String())
	f.Add("e30.e30.")
	f.Fuzz(func(t *testing.T, compact string) {
		s, err := bundle.ParseStatement(compact)
		if err != nil {
			require.ErrorIs(t, err, bundle.ErrStatement)
			return
		}
		require.Equal(t, compact, s.String(), "there is one spelling")
		again, err := bundle.NewStatement(s.Claims(), s.KeyID(), func([]byte) ([]byte, error) { return make([]byte, 64), nil })
		require.NoError(t, err, "what can be read can be written")
		require.Equal(t, s.Claims(), again.Claims())
	})
}
