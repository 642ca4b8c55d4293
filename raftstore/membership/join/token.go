package join

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// Token lets one member join a cluster, once. The operator gives its text to the joiner; the cluster keeps only the
// digest of its secret.
type Token struct {
	ClusterName string
	ID          string
	Secret      [32]byte
	Expires     time.Time
	// Identities are the digests of the identity keys of the members at the time that the token was made. The joiner
	// sends the secret only to them.
	Identities []memberid.Digest
}

const (
	// DefaultTTL is how long a token waits for its joiner by default.
	DefaultTTL = 10 * time.Minute
	// MaxTTL bounds that time: a token is made when it is needed, and not in advance.
	MaxTTL = 24 * time.Hour
)

// NewToken generates a token.
func NewToken(clusterName string, expires time.Time, identities []memberid.Digest) Token {
	t := Token{ClusterName: clusterName, Expires: expires.Truncate(time.Second), Identities: slices.Clone(identities)}
	t.ID, t.Secret = token.NewID(), token.NewSecret()
	slices.SortFunc(t.Identities, func(a, b memberid.Digest) int { return bytes.Compare(a[:], b[:]) })
	return t
}

// Text returns the text of the token, for the joiner's configuration. It is a secret.
func (t Token) Text() (string, error) {
	content := &statev1.JoinTokenContent{
		ClusterName:   t.ClusterName,
		Id:            t.ID,
		Secret:        t.Secret[:],
		ExpireSeconds: t.Expires.Unix(),
	}
	for _, d := range t.Identities {
		content.Identities = append(content.Identities, d[:])
	}
	return token.Encode(token.JoinPrefix, content)
}

// String names the token without revealing it.
func (t Token) String() string { return "join token " + t.ID }

// ErrMalformedToken is wrapped by every error of [ParseToken].
var ErrMalformedToken = errors.New("not a join token of this version of Entente; " +
	"make one with `entente cluster join-token` on a member and copy the whole line")

// ParseToken parses the text of a token. White space around it is allowed, because it often comes from a file; any
// other difference from the output of [Token.Text] is refused.
func ParseToken(text string) (Token, error) {
	t, err := parseToken(strings.TrimSpace(text))
	if err != nil {
		// The text is a secret: no part of it is in the error.
		return Token{}, fmt.Errorf("read the join token: %w: %w", err, ErrMalformedToken)
	}
	return t, nil
}

func parseToken(text string) (Token, error) {
	var content statev1.JoinTokenContent
	if err := token.Decode(token.JoinPrefix, text, &content); err != nil {
		return Token{}, err
	}
	return tokenOf(&content)
}

func tokenOf(content *statev1.JoinTokenContent) (Token, error) {
	t := Token{
		ClusterName: content.GetClusterName(),
		ID:          content.GetId(),
		Expires:     time.Unix(content.GetExpireSeconds(), 0),
	}
	switch {
	case !token.IsID(t.ID):
		return Token{}, errors.New("its id is malformed")
	case t.ClusterName == "" || memberid.CheckName("cluster name", t.ClusterName) != nil:
		return Token{}, errors.New("its cluster name is malformed")
	case len(content.GetSecret()) != len(t.Secret):
		return Token{}, errors.New("its secret is malformed")
	case len(content.GetIdentities()) == 0 || len(content.GetIdentities()) > directory.MaxMembers:
		return Token{}, fmt.Errorf(
			"it names %d members; 1 to %d are possible",
			len(content.GetIdentities()),
			directory.MaxMembers,
		)
	case content.GetExpireSeconds() < 0 || content.GetExpireSeconds() > maxUnixSeconds:
		return Token{}, errors.New("its expiry is malformed")
	}
	copy(t.Secret[:], content.GetSecret())
	for _, d := range content.GetIdentities() {
		if len(d) != len(memberid.Digest{}) {
			return Token{}, errors.New("the digest of a member's identity key is malformed")
		}
		t.Identities = append(t.Identities, memberid.Digest(d))
	}
	return t, nil
}

// maxUnixSeconds is the end of the year 9999, the last that protobuf's timestamps hold.
const maxUnixSeconds = 253402300799

// accepts is the joiner's check of the member that answers: its identity key must be one that the token names. The
// error contains the remedy.
func (t Token) accepts(presented memberid.Digest) error {
	if slices.Contains(t.Identities, presented) {
		return nil
	}
	return fmt.Errorf(
		"the member there has identity key %s, which the join token does not name: "+
			"either it is not a member of cluster %q, or it joined after the token was made; "+
			"nothing was sent to it; check the address, or make a new token",
		memberid.Short(presented),
		t.ClusterName,
	)
}
