package agenttoken_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/registration/agenttoken"
)

func token(t *testing.T) (agenttoken.Token, string) {
	t.Helper()
	made := agenttoken.New("node-1", "eu.example.org", []agenttoken.Server{
		{Address: "10.0.0.1:7440", Identity: [32]byte{1}}, {Address: "10.0.0.2:7440", Identity: [32]byte{2}},
	}, time.Unix(2_000_000_000, 5))
	text, err := made.Text()
	require.NoError(t, err)
	return made, text
}

func TestToken(t *testing.T) {
	made, text := token(t)
	parsed, err := agenttoken.Parse(" " + text + "\n")
	require.NoError(t, err)
	require.Equal(t, made, parsed)
	require.NotContains(t, made.String(), text[len(text)-20:])
}

func TestTokenIsOfItsOwnKind(t *testing.T) {
	_, text := token(t)
	members := "entente-join-1-" + text[len("entente-agent-1-"):]
	for _, other := range []string{"", text[:len(text)-3], text + "A", members} {
		_, err := agenttoken.Parse(other)
		require.ErrorIs(t, err, agenttoken.ErrMalformed)
		if len(other) > 20 {
			require.NotContains(t, err.Error(), other[len(other)-20:], "no part of a secret is in an error")
		}
	}
	for name, change := range map[string]func(*agenttoken.Token){
		"no agent":   func(t *agenttoken.Token) { t.Agent = "" },
		"no servers": func(t *agenttoken.Token) { t.Servers = nil },
		"no such ID": func(t *agenttoken.Token) { t.ID = "x" },
		"no end":     func(t *agenttoken.Token) { t.Expires = time.Unix(-1, 0) },
		"no home":    func(t *agenttoken.Token) { t.Home = "" },
		"too many":   func(t *agenttoken.Token) { t.Servers = make([]agenttoken.Server, 65) },
	} {
		made, _ := token(t)
		change(&made)
		text, err := made.Text()
		require.NoError(t, err)
		_, err = agenttoken.Parse(text)
		require.ErrorIs(t, err, agenttoken.ErrMalformed, name)
	}
}

func TestProof(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	session := []byte("a session")
	proof, err := agenttoken.Prove(key, session)
	require.NoError(t, err)
	require.True(t, agenttoken.Proved(&key.PublicKey, session, proof))
	require.False(t, agenttoken.Proved(&other.PublicKey, session, proof), "another key")
	require.False(t, agenttoken.Proved(&key.PublicKey, []byte("another session"), proof))
	require.False(t, agenttoken.Proved(&key.PublicKey, session, proof[1:]))
	empty, err := agenttoken.Prove(key, nil)
	require.NoError(t, err)
	require.False(t, agenttoken.Proved(&key.PublicKey, nil, empty), "without a session nothing is proved")
}

func FuzzParse(f *testing.F) {
	f.Add("entente-agent-1-AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := agenttoken.Parse(text)
		if err != nil {
			return
		}
		again, err := parsed.Text()
		require.NoError(t, err)
		_, err = agenttoken.Parse(again)
		require.NoError(t, err)
	})
}
