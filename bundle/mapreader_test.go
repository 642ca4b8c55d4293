package bundle_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
)

// readMap reads a map and parses what is in it.
func readMap(data string) (map[string]*bundle.Bundle, error) {
	all := make(map[string]*bundle.Bundle)
	n, err := bundle.ReadMap(strings.NewReader(data), func(td spiffeid.TrustDomain, document []byte) error {
		b, _, err := bundle.ParseMapped(td, document)
		all[td.Name()] = b
		return err
	})
	if err != nil {
		return nil, err
	}
	if n != len(all) {
		return nil, fmt.Errorf("%d domains were counted, and %d read", n, len(all))
	}
	return all, nil
}

func TestReadMap(t *testing.T) {
	const empty = `{"keys":[]}`
	for _, test := range []struct{ name, data, err string }{
		{"empty", `{"trust_domains":{}}`, ""},
		{"several, with parameters that are not known", `{"version":{"a":[1,2]},"trust_domains":{"a.example":` + empty +
			`,"b.example":` + empty + `},"z":null}`, ""},
		{"a hint of one bundle", `{"trust_domains":{"a.example":{"keys":[],"spiffe_refresh_hint":5}}}`, ""},
		{"a name twice", `{"trust_domains":{"a.example":` + empty + `,"a.example":` + empty + `}}`,
			"bundle map: a JSON object has two members of the same name: trust_domains has \"a.example\" twice"},
		{"trust_domains twice", `{"trust_domains":{},"trust_domains":{}}`,
			"bundle map: a JSON object has two members of the same name: the map has \"trust_domains\" twice"},
		{"none", `{}`, "bundle map: the bundle map has no trust_domains: trust_domains must be present; it may be empty"},
		{"null", `{"trust_domains":null}`,
			"bundle map: the bundle map has no trust_domains: trust_domains must be present; it may be empty"},
		{"a list", `{"trust_domains":[]}`, "bundle map: the document is malformed: trust_domains is not an object"},
		{"no map", `[]`, "bundle map: the document is malformed: the map is not an object"},
		{"no name", `{"trust_domains":{"A.example":` + empty + `}}`,
			"bundle map: trust domain \"A.example\": the name is not a valid trust domain"},
		{"a bundle without keys", `{"trust_domains":{"a.example":` + empty + `,"b.example":{}}}`,
			"bundle map: bundle document of b.example: the document has no list of keys"},
		{"cut off", `{"trust_domains":{"a.example":` + empty,
			"bundle map: the document is malformed: it is not JSON: "},
		{"something behind", `{"trust_domains":{}}{}`,
			"bundle map: the document is malformed: there is something behind its end"},
		{"no UTF-8", `{"trust_domains":{"a.example":{"keys":[],"x":"` + "\xff" + `"}}}`,
			"bundle map: the document is malformed: it is not valid UTF-8"},
		{"too many parameters", "{" + parameters(80) + `"trust_domains":{}}`,
			"bundle map: the document is larger than allowed: the map has more than 64 parameters"},
		{"a document that is too large", `{"trust_domains":{"a.example":{"keys":[],"x":"` + strings.Repeat("a",
			bundle.MaxDocumentBytes) + `"}}}`, "bundle map: the document is larger than allowed: the value of " +
			"\"a.example\" has 1048594 bytes, at most 1048576 are allowed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := readMap(test.data)
			if test.err == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, test.err)
			}
		})
	}
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

// FuzzReadMap: reading as it comes and reading at once come to the same.
func FuzzReadMap(f *testing.F) {
	for _, seed := range []string{`{"trust_domains":{}}`, `{"trust_domains":{"a.example":{"keys":[]}},"x":1}`, `{"trust_domains":{"a":{"keys":[]},"a":{"keys":[]}}}`, `{"a":{"b":1,"b":2},"trust_domains":{}} `} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, _, err := bundle.ParseMap(data)
		streamed, streamedErr := readMap(string(data))
		if (err == nil) != (streamedErr == nil) {
			if streamedErr != nil && errors.Is(streamedErr, bundle.ErrTooLarge) {
				return // it bounds more
			}
			t.Fatalf("at once: %v; as it comes: %v", err, streamedErr)
		}
		for td, b := range whole {
			if other := streamed[td.Name()]; other == nil || !bytes.Equal(other.Marshal(), b.Marshal()) {
				t.Fatalf("%s differs", td)
			}
		}
	})
}
