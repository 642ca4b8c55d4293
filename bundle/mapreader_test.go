package bundle_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
)

// readMap reads a map and parses the bundles in it. It returns the ignored parts of all of them.
func readMap(r io.Reader) (map[spiffeid.TrustDomain]*bundle.Bundle, []bundle.Ignored, error) {
	all := make(map[spiffeid.TrustDomain]*bundle.Bundle)
	var left []bundle.Ignored
	n, err := bundle.ReadMap(r, func(td spiffeid.TrustDomain, document []byte) error {
		b, ignored, err := bundle.ParseMapped(td, document)
		all[td], left = b, append(left, ignored...)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if n != len(all) {
		return nil, nil, fmt.Errorf("%d domains were counted, and %d read", n, len(all))
	}
	return all, left, nil
}

func TestReadMap(t *testing.T) {
	const empty = `{"keys":[]}`
	for _, test := range []struct{ name, data, reason, err string }{
		{"empty", `{"trust_domains":{}}`, "", ""},
		{"several, with unknown parameters", `{"version":{"a":[1,2]},"trust_domains":{"a.example":` + empty +
			`,"b.example":` + empty + `},"z":null}`, "", ""},
		{"a name twice", `{"trust_domains":{"a.example":` + empty + `,"a.example":` + empty + `}}`, "duplicate_name",
			`bundle map: a JSON object has two members of the same name: trust_domains has "a.example" twice`},
		{"a name twice, once escaped", `{"trust_domains":{"a":` + empty + `,"\u0061":` + empty + `}}`, "duplicate_name",
			`bundle map: a JSON object has two members of the same name: trust_domains has "a" twice`},
		{"trust_domains twice", `{"trust_domains":{},"trust_domains":{}}`, "duplicate_name",
			`bundle map: a JSON object has two members of the same name: the map has "trust_domains" twice`},
		{"no trust_domains", `{}`, "no_trust_domains",
			"bundle map: the bundle map has no trust_domains: trust_domains must be present; it may be empty"},
		{"null", `{"trust_domains":null}`, "no_trust_domains",
			"bundle map: the bundle map has no trust_domains: trust_domains must be present; it may be empty"},
		{"a list", `{"trust_domains":[]}`, "malformed",
			"bundle map: the document is malformed: trust_domains is not an object"},
		{"no map", `[]`, "malformed", "bundle map: the document is malformed: the map is not an object"},
		{"no name", `{"trust_domains":{"A.example":` + empty + `}}`, "bad_trust_domain",
			"bundle map: trust domain \"A.example\": the name is not a valid trust domain"},
		{"a SPIFFE ID as a name", `{"trust_domains":{"spiffe://a":` + empty + `}}`, "bad_trust_domain",
			"bundle map: trust domain \"spiffe://a\": the name is not a valid trust domain: write the name alone, " +
				"without scheme or path"},
		{"a bundle without keys", `{"trust_domains":{"a.example":` + empty + `,"b.example":{}}}`, "no_keys",
			"bundle map: bundle document of b.example: the document has no list of keys: keys must be present; an " +
				"empty list means that no key is trusted"},
		{"cut off", `{"trust_domains":{"a.example":` + empty, "malformed",
			"bundle map: the document is malformed: it is not JSON: "},
		{"text after the end", `{"trust_domains":{}}{}`, "malformed",
			"bundle map: the document is malformed: there is something behind its end"},
		{"no UTF-8", `{"trust_domains":{"a.example":{"keys":[],"x":"` + "\xff" + `"}}}`, "malformed",
			"bundle map: the document is malformed: it is not valid UTF-8"},
		{"too many parameters", "{" + parameters(80) + `"trust_domains":{}}`, "too_large",
			"bundle map: the document is larger than allowed: the map has more than 64 parameters"},
		{"a document that is too large", `{"trust_domains":{"a.example":{"keys":[],"x":"` +
			strings.Repeat("a", bundle.MaxDocumentBytes) + `"}}}`, "too_large",
			"bundle map: the document is larger than allowed: the value of \"a.example\" has 1048594 bytes, at most " +
				"1048576 are allowed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := readMap(strings.NewReader(test.data))
			if test.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.err)
			require.Equal(t, test.reason, bundle.Reason(err))
		})
	}

	read, ignored, err := readMap(strings.NewReader(`{"trust_domains":{"a":{"keys":[],"spiffe_refresh_hint":9}}}`))
	require.NoError(t, err)
	_, ok := read[spiffeid.RequireTrustDomainFromString("a")].RefreshHint()
	require.False(t, ok)
	require.Len(t, ignored, 1)
	require.Equal(t, "a bundle in a map has no refresh hint of its own (hint)", ignored[0].String())
}

func parameters(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "\"p%d\":%d,", i, i)
	}
	return b.String()
}

// endless is a map without end: a value, or domains.
type endless struct {
	head, again string
	n           int
	buf         bytes.Buffer
	read        int
}

func (e *endless) Read(p []byte) (int, error) {
	for e.buf.Len() < len(p) {
		if e.n == 0 {
			e.buf.WriteString(e.head)
		}
		if strings.Contains(e.again, "%d") {
			fmt.Fprintf(&e.buf, e.again, e.n)
		} else {
			e.buf.WriteString(e.again)
		}
		e.n++
	}
	n, err := e.buf.Read(p)
	e.read += n
	return n, err
}

func TestReadMapIsBounded(t *testing.T) {
	nothing := func(spiffeid.TrustDomain, []byte) error { return nil }
	value := &endless{head: `{"trust_domains":{"a.example":"`, again: strings.Repeat("a", 1000)}
	_, err := bundle.ReadMap(value, nothing)
	require.ErrorIs(t, err, bundle.ErrTooLarge)
	require.Less(t, value.read, 2*bundle.MaxDocumentBytes, "no more than one document is read into memory")

	names := &endless{head: `{"trust_domains":{"a.example":{"keys":[]}`, again: `,"d%d.example":{"keys":[]}`}
	_, err = bundle.ReadMap(names, nothing)
	require.ErrorIs(t, err, bundle.ErrTooLarge)
	require.ErrorContains(t, err, "it has more than 20000 trust domains")

	space := &endless{head: `{"trust_domains":{`, again: strings.Repeat(" ", 1000)}
	_, err = bundle.ReadMap(space, nothing)
	require.ErrorIs(t, err, bundle.ErrTooLarge)

	gone := errors.New("gone")
	_, err = bundle.ReadMap(
		io.MultiReader(strings.NewReader(`{"trust_domains":{"a.example":{"keys":[]},`), failing{gone}),
		nothing,
	)
	require.ErrorIs(t, err, gone, "an error of the network is none of the document")
	_, err = bundle.ReadMap(
		strings.NewReader(`{"trust_domains":{"a.example":{"keys":[]}}}`),
		func(spiffeid.TrustDomain, []byte) error { return gone },
	)
	require.ErrorIs(t, err, gone)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// FuzzReadMap: the result does not depend on how the bytes arrive, and what was read is the same when it is written and
// read again.
func FuzzReadMap(f *testing.F) {
	f.Add([]byte(`{"trust_domains":{}}`))
	f.Add([]byte(`{"trust_domains":{"a.example":{"keys":[]}},"x":1}`))
	f.Add([]byte(`{"trust_domains":{"a.test":{"keys":[]},"b.test":{"keys":[],"spiffe_refresh_hint":9}},"x":[]}`))
	f.Add([]byte(`{"trust_domains":{"a":{"keys":[]},"a":{"keys":[]}}}`))
	f.Add([]byte(`{"trust_domains":{"a":{"keys":[]},"\u0061":{"keys":[]}}}`))
	f.Add([]byte(`{"a":{"b":1,"b":2},"trust_domains":{}} `))
	f.Add(fmt.Appendf(nil, `{"trust_domains":{"eu.example.org":%s,"x":{"keys":[{"kty":"oct"}]}}}`, golden(f)))
	f.Fuzz(func(t *testing.T, data []byte) {
		bundles, _, err := readMap(bytes.NewReader(data))
		_, _, slowErr := readMap(iotest.OneByteReader(bytes.NewReader(data)))
		if bundle.Reason(err) != bundle.Reason(slowErr) {
			t.Fatalf("at once: %v; byte by byte: %v", err, slowErr)
		}
		if err != nil {
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
		again, ignored, err := readMap(bytes.NewReader(text))
		if err != nil || len(ignored) != 0 || len(again) != len(bundles) {
			t.Fatalf("written and read again: %v %v\n%s", err, ignored, text)
		}
		for td, b := range bundles {
			if !bytes.Equal(again[td].Marshal(), b.Marshal()) {
				t.Fatalf("%s differs", td)
			}
		}
	})
}
