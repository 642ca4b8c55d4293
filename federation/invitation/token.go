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
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// Token is what one cluster's operator hands to another one, so that the two clusters federate. Its text is a secret
// until it is used.
type Token struct {
	ID     string
	Secret token.Secret
	// TrustDomain is the domain of the inviting cluster, and Foreign the domain that is invited.
	TrustDomain, Foreign spiffeid.TrustDomain
	// Addresses are the members of the inviting cluster, and Identities the digests of their identity keys. The secret
	// is sent only to the holder of one of these keys.
	Addresses  []string
	Identities [][32]byte
	Expires    time.Time
}

const (
	// maxUnixSeconds is the end of the year 9999.
	maxUnixSeconds = 253402300799
)

// ErrToken is wrapped by every error of [ParseToken], in addition to the error of package token.
var ErrToken = errors.New(
	"get the whole line that `entente federation invite` printed from the other cluster's operator, or a new one",
)

// Text returns the text for `entente federation accept`.
func (t Token) Text() (string, error) {
	content := &statev1.InvitationContent{
		Id: t.ID, Secret: t.Secret[:], TrustDomain: t.TrustDomain.Name(), ForeignTrustDomain: t.Foreign.Name(),
		Addresses: t.Addresses, ExpireSeconds: t.Expires.Unix(),
	}
	for _, d := range t.Identities {
		content.Identities = append(content.Identities, d[:])
	}
	text, err := token.Encode(token.InvitationPrefix, content)
	return text, checkLength(text, err)
}

// checkLength returns err, or an error if a text is too long for [ParseToken].
func checkLength(text string, err error) error {
	if err == nil && len(text) > token.MaxText {
		err = fmt.Errorf("the token would have %d characters; the limit is %d", len(text), token.MaxText)
	}
	return err
}

// String returns the ID, without the secret.
func (t Token) String() string { return "invitation " + t.ID }

// ParseToken reads a token, with or without white space around it. Its errors wrap [token.ErrDamaged] for a damaged
// token, and [token.ErrNotAToken] for another text.
func ParseToken(text string) (Token, error) {
	var content statev1.InvitationContent
	err := token.Decode(token.InvitationPrefix, strings.TrimSpace(text), &content)
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
		return t, fmt.Errorf("it has %d addresses; 1 to %d are possible", len(t.Addresses),
			relationship.MaxPeerAddresses)
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

// accepts returns an error if the token does not name an identity key. It runs before anything is sent.
func (t Token) accepts(presented [32]byte) error {
	if slices.Contains(t.Identities, presented) {
		return nil
	}
	return fmt.Errorf(
		"the invitation does not name identity key %x, which was presented there: it is not of a member of the "+
			"inviting cluster, or of one that joined later; nothing was sent", presented[:8])
}
