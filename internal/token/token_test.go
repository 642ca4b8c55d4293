package token

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const prefix = "entente-test-1-"

func TestText(t *testing.T) {
	text, err := Encode(prefix, wrapperspb.String("something"))
	require.NoError(t, err)
	var back wrapperspb.StringValue
	require.NoError(t, Decode(prefix, text, &back))
	require.Equal(t, "something", back.GetValue())

	unknown := wrapperspb.String("something")
	unknown.ProtoReflect().SetUnknown([]byte{0x78, 1})
	longer, err := Encode(prefix, unknown)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		text string
		is   error
		says string
	}{
		"nothing":          {"", ErrNotAToken, `it does not begin with "entente-test-1-"`},
		"another kind":     {strings.Replace(text, "test", "join", 1), ErrNotAToken, "it does not begin with"},
		"very long":        {text + strings.Repeat("A", MaxText), ErrNotAToken, "more than any token"},
		"cut":              {text[:len(text)-4], ErrDamaged, "its checksum does not fit"},
		"nearly nothing":   {prefix + "AA", ErrDamaged, "its end is missing"},
		"padding":          {text + "=", ErrDamaged, "characters that no token has"},
		"a line break":     {text[:20] + "\n" + text[20:], ErrDamaged, "characters that no token has"},
		"two exchanged":    {text[:20] + text[21:22] + text[20:21] + text[22:], ErrDamaged, ""},
		"an unknown field": {longer, ErrNotAToken, "it is not written as a member writes tokens"},
	} {
		err := Decode(prefix, c.text, &back)
		require.ErrorIs(t, err, c.is, name)
		require.ErrorContains(t, err, c.says, name)
	}
}

func TestSecret(t *testing.T) {
	s := NewSecret()
	digest := s.Digest()
	require.True(t, Proves(s[:], digest[:]))
	other := NewSecret()
	require.False(t, Proves(other[:], digest[:]))
	require.False(t, Proves(nil, nil))
	require.True(t, IsID(NewID()))
	for _, id := range []string{"", "first", strings.ToUpper(NewID()) + "A", NewID()[1:]} {
		require.False(t, IsID(id), id)
	}
}
