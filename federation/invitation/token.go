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

// InvitationToken is what one cluster hands another so that they federate. Its text is a secret until it is used.
type Token struct {
	ID     string
	Secret token.Secret
	// TrustDomain is offered, and Foreign is whom it is for.
	TrustDomain, Foreign spiffeid.TrustDomain
	// Addresses are where members of the inviting cluster are reached, and Identities the digests of their identity
	// keys: the secret is sent to nobody else.
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

// ErrInvitationToken is wrapped by every error of [ParseInvitationToken], beside what package token says of the text.
var ErrToken = errors.New(
	"ask the other cluster's operator for the whole line that `entente federation invite` printed there, or for a new one",
)

// Text returns what the other operator gives to `entente federation accept`.
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

// String names the token without giving it away.
func (t Token) String() string { return "invitation " + t.ID }

// ParseInvitationToken reads a token. A damaged one is told from what is none: errors wrap [token.ErrDamaged] or
// [token.ErrNotAToken]. White space around it is allowed.
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

// accepts is the check of who answers, before anything is sent.
func (t Token) accepts(presented [32]byte) error {
	if slices.Contains(t.Identities, presented) {
		return nil
	}
	return fmt.Errorf(
		"who answers there has identity key %x, which the invitation does not name: it is not a member of the cluster that made the invitation, "+
			"or became one after that; nothing was sent to it",
		presented[:8],
	)
}
