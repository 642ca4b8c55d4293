package provider

import (
	"encoding/pem"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSame(t *testing.T) {
	one := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("one")}))
	two := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("two")}))
	for _, c := range []struct {
		is   func(a, b string) bool
		a, b string
		want bool
	}{
		{sameDuration, "60s", "1m", true},
		{sameDuration, "60s", "61s", false},
		{sameDuration, "60s", "a minute", false},
		{sameDuration, "a minute", "a minute", false},
		{sameContent, `{"keys":[],"n":1}`, `{ "n": 1, "keys": [] }`, true},
		{sameContent, `{"n":1}`, `{"n":1.0}`, false},
		{sameContent, `{"n":9007199254740993}`, `{"n":9007199254740992}`, false},
		{sameContent, `{"n":1}`, `{"n":1} {}`, false},
		{sameContent, one + two, "# roots\n" + one + "\n" + two, true},
		{sameContent, one + two, two + one, false},
		{sameContent, one, `{}`, false},
		{sameContent, "no document", "no document either", false},
	} {
		require.Equal(t, c.want, c.is(c.a, c.b), "%s and %s", c.a, c.b)
		require.Equal(t, c.want, c.is(c.b, c.a), "%s and %s", c.b, c.a)
	}
}
