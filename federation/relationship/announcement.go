package relationship

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/internal/egress"
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
	addresses, err := ParseAddresses("peer.addresses", m.GetAddresses())
	if err != nil {
		return Announcement{}, err
	}
	for _, all := range [][]string{m.GetUrls(), m.GetHomeUrls()} {
		if len(all) > MaxEndpoints {
			return Announcement{}, fmt.Errorf("it names %d endpoints; %d are the most", len(all), MaxEndpoints)
		}
		for i, one := range all {
			if _, err := endpoint.ParseURL(one); err != nil {
				return Announcement{}, fmt.Errorf("an endpoint that it names: %w", err)
			}
			if slices.Contains(all[:i], one) {
				return Announcement{}, fmt.Errorf("it names the endpoint %s twice", Quote(one))
			}
		}
	}
	// An announced loopback address waits for an operator as any other host does.
	if err := CheckHosts(slices.Concat(addresses, m.GetUrls(), m.GetHomeUrls()), true); err != nil {
		return Announcement{}, err
	}
	return Announcement{m.GetIdentities(), addresses, m.GetUrls(), m.GetHomeUrls()}, nil
}

// Apply applies an announcement to a relationship, and reports whether anything in it is new. The order of members
// means nothing.
//
// Addresses, and the URLs of an endpoint that authenticates by X509-SVID, follow the announcement until an operator
// sets others, as long as all of them are at hosts that were agreed: see [AgreedHosts]. An announcement of other hosts
// waits for an operator, who applies it with [ApplyPending]. An https_web endpoint authenticates by its URL, so that
// only an operator can change it.
func (t Announcement) Apply(row *statev1.Relationship) (changed bool) {
	a := row.GetAgreement()
	if len(t.Identities) > 0 && !sameSet(a.GetIdentities(), t.Identities, bytes.Compare) {
		a.Identities, changed = t.Identities, true
	}
	agreed := AgreedHosts(row)
	follow := func(announced, last []string, pending *[]string, apply func()) {
		switch {
		case len(announced) == 0:
		case sameSet(last, announced, cmp.Compare):
			changed = changed || len(*pending) > 0
			*pending = nil
		case !within(announced, agreed):
			changed = changed || !sameSet(*pending, announced, cmp.Compare)
			*pending = announced
		default:
			*pending, changed = nil, true
			apply()
		}
	}
	follow(t.Addresses, a.GetAddresses(), &a.PendingAddresses, func() { followAddresses(row, t.Addresses) })
	urls := t.Urls
	if a.GetLinkedHome() {
		urls = t.HomeURLs
	}
	follow(urls, a.GetUrls(), &a.PendingUrls, func() { followURLs(row, urls) })
	return changed
}

// ApplyPending applies what the other side announced and an operator had to approve, and reports whether there was
// anything.
func ApplyPending(row *statev1.Relationship) (changed bool) {
	a := row.GetAgreement()
	if pending := a.GetPendingAddresses(); len(pending) > 0 {
		followAddresses(row, pending)
		a.PendingAddresses, changed = nil, true
	}
	if pending := a.GetPendingUrls(); len(pending) > 0 {
		followURLs(row, pending)
		a.PendingUrls, changed = nil, true
	}
	return changed
}

func followAddresses(row *statev1.Relationship, addresses []string) {
	a := row.GetAgreement()
	if row.GetPeer() != nil && slices.Equal(row.GetPeer().GetAddresses(), a.GetAddresses()) {
		row.Peer.Addresses = addresses
	}
	a.Addresses = addresses
}

func followURLs(row *statev1.Relationship, urls []string) {
	a := row.GetAgreement()
	if row.GetProfile() == int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE) &&
		slices.Equal(URLs(row), a.GetUrls()) {
		row.Url, row.FallbackUrls = urls[0], urls[1:]
	}
	a.Urls = urls
}

// AgreedHosts returns, in order, the hosts of a relationship's URLs and addresses: those that an operator gave, those
// of the offer that an operator approved, and those of later announcements that were approved.
func AgreedHosts(row *statev1.Relationship) []string {
	var hosts []string
	for _, list := range [][]string{
		URLs(row), row.GetPeer().GetAddresses(), row.GetAgreement().GetUrls(), row.GetAgreement().GetAddresses(),
	} {
		for _, place := range list {
			hosts = append(hosts, hostOf(place))
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// within reports whether URLs or addresses are all at some hosts.
func within(places, hosts []string) bool {
	return !slices.ContainsFunc(places, func(p string) bool { return !slices.Contains(hosts, hostOf(p)) })
}

// hostOf returns the host of a URL or of HOST:PORT, in lower case.
func hostOf(place string) string {
	if u, err := url.Parse(place); err == nil && u.Host != "" {
		return strings.ToLower(u.Hostname())
	}
	host, _, err := net.SplitHostPort(place)
	if err != nil {
		return strings.ToLower(place)
	}
	return strings.ToLower(host)
}

// AtLoopback reports whether one of some URLs or addresses is at a loopback address.
func AtLoopback(places []string) bool {
	return slices.ContainsFunc(places, func(p string) bool { return egress.Loopback(hostOf(p)) })
}

// CheckHosts returns an error if a peer names an address that only an operator can give. Loopback addresses are
// possible if this cluster is at one itself.
func CheckHosts(places []string, loopback bool) error {
	for _, place := range places {
		host := hostOf(place)
		if loopback && egress.Loopback(host) {
			continue
		}
		if err := egress.Refusal(host); err != nil {
			return err
		}
	}
	return nil
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
