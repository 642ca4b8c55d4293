package relationship

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/endpoint"
)

// Announcement is what the other side of an agreement announces of its members: identity keys, addresses, and the URLs
// of the bundles of the domain and of the home domain. An empty list is not announced.
type Announcement struct {
	Identities                [][]byte
	Addresses, Urls, HomeURLs []string
}

// announces is implemented by the messages with an announcement.
type announces interface {
	GetIdentities() [][]byte
	GetAddresses() []string
	GetUrls() []string
	GetHomeUrls() []string
}

// ParseAnnouncement parses an announcement of another cluster. One invalid part makes all of it invalid.
func ParseAnnouncement(m announces) (Announcement, error) {
	if _, err := ParseIdentities(m.GetIdentities()); err != nil {
		return Announcement{}, err
	}
	addresses, err := parseAddresses(m.GetAddresses())
	if err != nil {
		return Announcement{}, err
	}
	for _, all := range [][]string{m.GetUrls(), m.GetHomeUrls()} {
		if len(all) > MaxEndpoints {
			return Announcement{}, fmt.Errorf("it names %d endpoints; %d are the most", len(all), MaxEndpoints)
		}
		for i, url := range all {
			if _, err := endpoint.ParseURL(url); err != nil {
				return Announcement{}, fmt.Errorf("an endpoint that it names: %w", err)
			}
			if slices.Contains(all[:i], url) {
				return Announcement{}, fmt.Errorf("it names the endpoint %s twice", Quote(url))
			}
		}
	}
	return Announcement{m.GetIdentities(), addresses, m.GetUrls(), m.GetHomeUrls()}, nil
}

// Apply applies an announcement to a relationship, and reports whether anything in it is new. The order of members
// means nothing.
//
// Addresses, and the URLs of an endpoint that authenticates by X509-SVID, follow the announcement until an operator
// sets others. An https_web endpoint authenticates by its URL, so that only an operator can change it.
func (t Announcement) Apply(row *statev1.Relationship) (changed bool) {
	a := row.GetAgreement()
	if len(t.Identities) > 0 && !sameSet(a.GetIdentities(), t.Identities, bytes.Compare) {
		a.Identities, changed = t.Identities, true
	}
	if len(t.Addresses) > 0 && !sameSet(a.GetAddresses(), t.Addresses, cmp.Compare) {
		if row.GetPeer() != nil && slices.Equal(row.GetPeer().GetAddresses(), a.GetAddresses()) {
			row.Peer.Addresses = t.Addresses
		}
		a.Addresses, changed = t.Addresses, true
	}
	urls := t.Urls
	if a.GetLinkedHome() {
		urls = t.HomeURLs
	}
	if len(urls) > 0 && !sameSet(a.GetUrls(), urls, cmp.Compare) {
		if row.GetProfile() == int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE) &&
			slices.Equal(URLs(row), a.GetUrls()) {
			row.Url, row.FallbackUrls = urls[0], urls[1:]
		}
		a.Urls, changed = urls, true
	}
	return changed
}

// URLs returns the endpoints of a relationship, in the order in which they are tried.
func URLs(row *statev1.Relationship) []string {
	return append([]string{row.GetUrl()}, row.GetFallbackUrls()...)
}

// sameSet reports whether two lists without duplicates have the same elements.
func sameSet[E any](x, y []E, compare func(E, E) int) bool {
	x, y = slices.SortedFunc(slices.Values(x), compare), slices.SortedFunc(slices.Values(y), compare)
	return slices.EqualFunc(x, y, func(a, b E) bool { return compare(a, b) == 0 })
}

// maxIdentities bounds the members of a cluster.
const maxIdentities = 64

// ParseIdentities parses digests of identity keys.
func ParseIdentities(raw [][]byte) ([][32]byte, error) {
	if len(raw) == 0 || len(raw) > maxIdentities {
		return nil, fmt.Errorf(
			"it names the identity keys of %d members; 1 to %d are possible",
			len(raw),
			maxIdentities,
		)
	}
	var out [][32]byte
	for _, d := range raw {
		if len(d) != 32 {
			return nil, errors.New("the digest of a member's identity key is malformed")
		}
		out = append(out, [32]byte(d))
	}
	return out, nil
}
