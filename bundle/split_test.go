package bundle_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

// TestTooManyMembers: an object of more members than any has is refused under a name, with or without meaning.
func TestTooManyMembers(t *testing.T) {
	members := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"%x":{"x":[0,"]}"]},`, i)
		}
		return b.String()
	}
	for _, test := range []struct{ name, document, text string }{
		{"in the document", `{` + members(1024) + `"keys":[]}`,
			"a JSON object has more members than allowed: the document has more than 1024"},
		{"in a key", `{"keys":[{` + members(1024) + `"kty":"x"}]}`,
			"key 0: a JSON object has more members than allowed: the element has more than 1024"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := bundle.Parse(bundletest.Home, []byte(test.document))
			require.EqualError(t, err, "bundle document of eu.example.org: "+test.text)
			require.Equal(t, "too_many_members", bundle.Reason(err))
		})
	}
	_, ignored, err := bundle.Parse(bundletest.Home, []byte(`{`+members(1023)+`"keys":[]}`))
	require.NoError(t, err)
	require.Len(t, ignored, bundle.MaxIgnored+1)
	require.Equal(t, "959 more parts have no effect (more)", ignored[bundle.MaxIgnored].String())
	require.Equal(t, 1023, bundle.CountIgnored(ignored))
	require.Zero(t, bundle.CountIgnored(nil))
}
