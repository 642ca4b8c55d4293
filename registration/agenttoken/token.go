// Package agenttoken has the one-time token with which an agent attests itself, and the proof that an agent has its
// key.
//
// The token's text holds the addresses of the members and the digests of their identity keys, so that an agent sends
// its secret to nobody else. It is of a type of its own: a member's join token admits no agent, nor the reverse.
package agenttoken

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/internal/token"
)

const (
	// maxMembers is far above the members of a cluster.
	maxMembers = 64
	// maxUnixSeconds is the end of the year 9999, the last that protobuf's timestamps hold.
	maxUnixSeconds = 253402300799

	// DefaultTTL is how long a token waits for its agent by default.
	DefaultTTL = 10 * time.Minute
	// MaxTTL bounds that time: a token is made when it is needed, and not in advance.
	MaxTTL = 24 * time.Hour
)

// Server is a member as an agent finds it.
type Server struct {
	Address  string
	Identity [32]byte
}

// Token admits one agent, once. The operator gives its text to the agent; the cluster keeps the digest of its secret.
type Token struct {
	ID     string
	Secret token.Secret
	// Agent is the name that the agent will have.
	Agent string
	// Home is the home trust domain of the cluster.
	Home    string
	Servers []Server
	Expires time.Time
}

// New generates a token.
func New(agent, home string, servers []Server, expires time.Time) Token {
	return Token{
		ID: token.NewID(), Secret: token.NewSecret(), Agent: agent, Home: home, Servers: slices.Clone(servers),
		Expires: expires.Truncate(time.Second),
	}
}

// Text returns the text of the token. It is a secret.
func (t Token) Text() (string, error) {
	content := &statev1.AgentTokenContent{
		Id: t.ID, Secret: t.Secret[:], Agent: t.Agent, HomeTrustDomain: t.Home, ExpireSeconds: t.Expires.Unix(),
	}
	for _, s := range t.Servers {
		content.Addresses = append(content.Addresses, s.Address)
		content.Identities = append(content.Identities, s.Identity[:])
	}
	return token.Encode(token.AgentPrefix, content)
}

// String names the token without revealing it.
func (t Token) String() string { return "agent token " + t.ID }

// ErrMalformed is wrapped by every error of [Parse].
var ErrMalformed = errors.New("not a token for an agent of this version of Entente; make one with `entente agent " +
	"token` and copy the whole line")

// Parse parses the text of a token. White space around it is allowed.
func Parse(text string) (Token, error) {
	var content statev1.AgentTokenContent
	err := token.Decode(token.AgentPrefix, strings.TrimSpace(text), &content)
	if err == nil {
		var t Token
		if t, err = fromContent(&content); err == nil {
			return t, nil
		}
	}
	// The text is a secret: no part of it is in the error.
	return Token{}, fmt.Errorf("read the token: %w: %w", err, ErrMalformed)
}

func fromContent(c *statev1.AgentTokenContent) (Token, error) {
	t := Token{
		ID: c.GetId(), Agent: c.GetAgent(), Home: c.GetHomeTrustDomain(), Expires: time.Unix(c.GetExpireSeconds(), 0),
	}
	switch n := len(c.GetIdentities()); {
	case !token.IsID(t.ID) || len(c.GetSecret()) != len(t.Secret) || t.Agent == "" || t.Home == "":
		return Token{}, errors.New("a field is malformed")
	case n == 0 || n > maxMembers || n != len(c.GetAddresses()):
		return Token{}, fmt.Errorf("it names %d members at %d addresses", n, len(c.GetAddresses()))
	case c.GetExpireSeconds() < 0 || c.GetExpireSeconds() > maxUnixSeconds:
		return Token{}, errors.New("its expiry is malformed")
	}
	copy(t.Secret[:], c.GetSecret())
	for i, d := range c.GetIdentities() {
		if len(d) != len(Server{}.Identity) {
			return Token{}, errors.New("the digest of a member's identity key is malformed")
		}
		t.Servers = append(t.Servers, Server{Address: c.GetAddresses()[i], Identity: [32]byte(d)})
	}
	return t, nil
}

// Identity returns the digest by which an agent's key is known.
func Identity(key *ecdsa.PublicKey) ([32]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	return sha256.Sum256(spki), err
}

// digest is what an agent signs: the session that it attests itself in, and its key.
func digest(binding []byte, identity [32]byte) []byte {
	sum := sha256.New()
	sum.Write([]byte("entente agent attestation\x00"))
	sum.Write(binding)
	sum.Write(identity[:])
	return sum.Sum(nil)
}

// Prove signs a TLS session with the key of an agent. binding is the value that both ends derive from the session.
func Prove(key *ecdsa.PrivateKey, binding []byte) ([]byte, error) {
	identity, err := Identity(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	return ecdsa.SignASN1(rand.Reader, key, digest(binding, identity))
}

// Proved reports whether proof is the signature of [Prove], by the key and for the session.
func Proved(key *ecdsa.PublicKey, binding, proof []byte) bool {
	identity, err := Identity(key)
	return err == nil && len(binding) > 0 && ecdsa.VerifyASN1(key, digest(binding, identity), proof)
}
