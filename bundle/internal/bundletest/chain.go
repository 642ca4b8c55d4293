package bundletest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle/statement"
)

// ChainDomain is the trust domain of the statements of a [Chain].
var ChainDomain = spiffeid.RequireTrustDomainFromString("eu.example.org")

// SignES256 signs as the authority room does.
func SignES256(key *ecdsa.PrivateKey) func([]byte) ([]byte, error) {
	return func(input []byte) ([]byte, error) {
		sum := sha256.Sum256(input)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			return nil, err
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), nil
	}
}

// Chain makes statements, each after the one before.
type Chain struct {
	t    testing.TB
	keys map[string]*ecdsa.PrivateKey
	List []*statement.Statement
}

// NewChain returns an empty chain.
func NewChain(t testing.TB) *Chain { return &Chain{t: t, keys: map[string]*ecdsa.PrivateKey{}} }

// Fork returns a chain with the same keys whose statements are the first n.
func (c *Chain) Fork(n int) *Chain {
	return &Chain{t: c.t, keys: c.keys, List: slices.Clip(c.List[:n])}
}

// Key returns the signing key with the given kid, and makes it on first use.
func (c *Chain) Key(kid string) *ecdsa.PrivateKey {
	if c.keys[kid] == nil {
		c.keys[kid] = NewKey(c.t)
	}
	return c.keys[kid]
}

// Claims continues the newest statement, or starts a chain.
func (c *Chain) Claims(sequence uint64, next ...string) statement.Claims {
	claims := statement.Claims{
		TrustDomain: ChainDomain,
		Sequence:    sequence,
		Keys:        sha256.Sum256([]byte{byte(sequence)}),
		Issued:      time.Unix(1_800_000_000, 0).UTC(),
		Next:        map[string]*ecdsa.PublicKey{},
	}
	for _, kid := range next {
		claims.Next[kid] = &c.Key(kid).PublicKey
	}
	if n := len(c.List); n > 0 {
		claims.Previous = c.List[n-1].Digest()
	} else {
		claims.Start = statement.StartFirst
	}
	return claims
}

// Sign signs claims. It does not add the statement to the chain.
func (c *Chain) Sign(claims statement.Claims, kid string) *statement.Statement {
	s, err := statement.New(claims, kid, SignES256(c.Key(kid)))
	require.NoError(c.t, err)
	return s
}

// Add signs the next statement with the key of kid, and adds it to the chain.
func (c *Chain) Add(sequence uint64, kid string, next ...string) *statement.Statement {
	s := c.Sign(c.Claims(sequence, next...), kid)
	c.List = append(c.List, s)
	return s
}
