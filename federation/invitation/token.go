package invitation

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/raftstore/token"
)

// Token is what one cluster hands to another so that they federate. Its text is a secret until it is redeemed.
type Token struct {
	ID     string
	Secret token.Secret
	// TrustDomain is the domain that is offered, and Foreign the domain that is invited.
	TrustDomain, Foreign spiffeid.TrustDomain
	// Addresses are the addresses of members of the inviting cluster, and Identities the digests of their identity
	// keys. The secret is sent only to the holder of one of these keys.
	Addresses  []string
	Identities [][32]byte
	Expires    time.Time
}

const (
	// invitationPrefix names the kind of the text and the version of its format.
	invitationPrefix = "entente-federate-1-"
	// maxUnixSeconds is the end of the year 9999.
	maxUnixSeconds = 253402300799
)

// ErrToken is wrapped by every error of [ParseToken], besides those of package token.
var ErrToken = errors.New(
	"ask the other cluster's operator for the whole line that `entente federation invite` printed there, or for a new " +
		"one",
)

// Text returns the argument of `entente federation accept`.
func (t Token) Text() (string, error) {
	content := &statev1.InvitationContent{
		Id: t.ID, Secret: t.Secret[:], TrustDomain: t.TrustDomain.Name(), ForeignTrustDomain: t.Foreign.Name(), Addresses: t.Addresses, ExpireSeconds: t.Expires.Unix(),
	}
	for _, d := range t.Identities {
		content.Identities = append(content.Identities, d[:])
	}
	text, err := token.Encode(invitationPrefix, content)
	if err == nil && len(text) > token.MaxText {
		err = fmt.Errorf("the token would have %d characters; %d are the most", len(text), token.MaxText)
	}
	return text, err
}

// String identifies the token without revealing its secret.
func (t Token) String() string { return "invitation " + t.ID }

// ParseToken parses a token. Errors wrap [token.ErrDamaged] or [token.ErrNotAToken]. White space around the text is
// ignored.
func ParseToken(text string) (Token, error) {
	var content statev1.InvitationContent
	err := token.Decode(invitationPrefix, strings.TrimSpace(text), &content)
	if err == nil {
		var t Token
		if t, err = invitationTokenOf(&content); err == nil {
			return t, nil
		}
		err = fmt.Errorf("%w: %w", err, token.ErrNotAToken)
	}
	return Token{}, fmt.Errorf("read the invitation: %w; %w", err, ErrToken)
}

func invitationTokenOf(c *statev1.InvitationContent) (t Token, err error) {
	t = Token{ID: c.GetId(), Addresses: c.GetAddresses(), Expires: time.Unix(c.GetExpireSeconds(), 0)}
	switch {
	case !token.IsID(t.ID):
		return t, errors.New("its id is malformed")
	case len(c.GetSecret()) != len(t.Secret):
		return t, errors.New("its secret is malformed")
	case c.GetExpireSeconds() < 0 || c.GetExpireSeconds() > maxUnixSeconds:
		return t, errors.New("its expiry is malformed")
	case len(t.Addresses) == 0 || len(t.Addresses) > relationship.MaxPeerAddresses:
		return t, fmt.Errorf(
			"it names %d addresses; 1 to %d are possible",
			len(t.Addresses),
			relationship.MaxPeerAddresses,
		)
	}
	copy(t.Secret[:], c.GetSecret())
	if t.TrustDomain, err = relationship.ParseTrustDomain(c.GetTrustDomain()); err != nil {
		return t, err
	}
	if t.Foreign, err = relationship.ParseTrustDomain(c.GetForeignTrustDomain()); err != nil {
		return t, err
	}
	if t.Foreign == t.TrustDomain {
		return t, errors.New("it invites a trust domain to federate with itself")
	}
	for _, address := range t.Addresses {
		if err := memberid.CheckAddress(address); err != nil {
			return t, errors.New("an address in it is malformed")
		}
	}
	t.Identities, err = relationship.ParseIdentities(c.GetIdentities())
	return t, err
}

// accepts checks the identity key of a member before anything is sent to it.
func (t Token) accepts(presented [32]byte) error {
	if slices.Contains(t.Identities, presented) {
		return nil
	}
	return fmt.Errorf(
		"who answers there has identity key %x, which the invitation does not name: it is not a member of the cluster "+
			"that made the invitation, "+
			"or became one after that; nothing was sent to it",
		presented[:8],
	)
}
