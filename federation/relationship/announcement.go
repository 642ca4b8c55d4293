package relationship

import (
	"bytes"
	"cmp"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/internal/egress"
)

// Announcement is what the other side of an agreement announces of its members: identity keys, addresses, the URLs of
// the bundles of the domain and of the home domain, and the web roots of an https_web endpoint in PEM. What is empty is
// not announced.
type Announcement struct {
	Identities                [][]byte
	Addresses, Urls, HomeURLs []string
	WebRoots                  []byte
}

// announces is implemented by the messages with an announcement.
type announces interface {
	GetIdentities() [][]byte
	GetAddresses() []string
	GetUrls() []string
	GetHomeUrls() []string
	GetWebRoots() []byte
}

// ParseAnnouncement parses an announcement of another cluster. One invalid part makes all of it invalid.
func ParseAnnouncement(m announces, now time.Time) (Announcement, error) {
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
	roots, _, err := ParseWebRoots(m.GetWebRoots(), now)
	if err != nil {
		return Announcement{}, err
	}
	return Announcement{m.GetIdentities(), addresses, m.GetUrls(), m.GetHomeUrls(), roots}, nil
}

// The bounds of the web roots of another cluster, which have to fit a message beside two bundles. A private CA has a
// root, and the next one during its rotation.
const (
	maxOfferedRootsBytes = 32 << 10
	maxOfferedRoots      = 16
)

// ParseWebRoots parses the web roots that one cluster gives another, before they are sent and before they are stored:
// PEM certificates and nothing else, within bounds. It returns them in one form, without what stood around them,
// without repetitions and without those that have expired, which expired names. It returns an error if none is left.
func ParseWebRoots(data []byte, now time.Time) (roots []byte, expired []string, err error) {
	if len(data) == 0 {
		return nil, nil, nil
	}
	if n := len(data); n > maxOfferedRootsBytes {
		return nil, nil, fmt.Errorf("its web roots have %d bytes; %d are the most", n, maxOfferedRootsBytes)
	}
	all, err := endpoint.ParseRoots(data)
	if err != nil {
		return nil, nil, fmt.Errorf("its web roots: %s", Clip(err.Error()))
	}
	if n := len(all); n > maxOfferedRoots {
		return nil, nil, fmt.Errorf("it has %d web roots; %d are the most", n, maxOfferedRoots)
	}
	for i, root := range all {
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})
		switch {
		case now.After(root.NotAfter):
			expired = append(expired,
				fmt.Sprintf("web root %d expired at %s", i+1, root.NotAfter.UTC().Format(time.RFC3339)))
		case !bytes.Contains(roots, block):
			roots = append(roots, block...)
		}
	}
	if len(roots) == 0 {
		return nil, nil, fmt.Errorf("its %s, and no other is left", strings.Join(expired, ", its "))
	}
	return roots, expired, nil
}

// MergeWebRoots returns the web roots of several members in one form: whoever merges the same lists, in any order, gets
// the same. Of more than the other side accepts, the rest is left out.
func MergeWebRoots(lists [][]byte, now time.Time) []byte {
	blocks := map[string]bool{}
	for _, list := range lists {
		roots, _, err := ParseWebRoots(list, now)
		if err != nil {
			continue // they have all expired since
		}
		for block, rest := pem.Decode(roots); block != nil; block, rest = pem.Decode(rest) {
			blocks[string(pem.EncodeToMemory(block))] = true
		}
	}
	var out []byte
	for i, block := range slices.Sorted(maps.Keys(blocks)) {
		if i == maxOfferedRoots || len(out)+len(block) > maxOfferedRootsBytes {
			break
		}
		out = append(out, block...)
	}
	return out
}

// Apply applies an announcement to a relationship, and reports whether anything in it is new. The order of members
// means nothing.
//
// Addresses, and the URLs of an endpoint that authenticates by X509-SVID, follow the announcement until an operator
// sets others, as long as all of them are at hosts that were agreed: see [AgreedHosts]. An announcement of other hosts
// waits for an operator, who applies it with [ApplyPending]. An https_web endpoint authenticates by its URL, so that
// only an operator can change it; its web roots follow as addresses do, if the other side gave some before and all
// announced URLs are at agreed hosts.
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
	return t.applyRoots(row, within(urls, agreed)) || changed
}

// applyRoots applies announced web roots, which wait for an operator if the hosts that were announced with them are not
// agreed. They also wait if there were none: the system's roots verified the endpoint then.
func (t Announcement) applyRoots(row *statev1.Relationship, agreed bool) (changed bool) {
	a, digest := row.GetAgreement(), endpoint.RootsDigest(t.WebRoots)
	if digest == nil || row.GetProfile() != int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB) {
		return false
	}
	switch last := a.GetWebRootsSha256(); {
	case bytes.Equal(digest, last):
		changed = len(a.GetPendingWebRoots()) > 0
		a.PendingWebRoots = nil
	case len(last) == 0 || !agreed:
		changed = !bytes.Equal(digest, endpoint.RootsDigest(a.GetPendingWebRoots()))
		a.PendingWebRoots = t.WebRoots
	default:
		a.PendingWebRoots, changed = nil, true
		followRoots(row, t.WebRoots)
	}
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
	if pending := a.GetPendingWebRoots(); len(pending) > 0 {
		followRoots(row, pending)
		a.PendingWebRoots, changed = nil, true
	}
	return changed
}

func followRoots(row *statev1.Relationship, roots []byte) {
	a := row.GetAgreement()
	if bytes.Equal(endpoint.RootsDigest(row.GetWebRoots()), a.GetWebRootsSha256()) {
		row.WebRoots = roots
	}
	a.WebRootsSha256 = endpoint.RootsDigest(roots)
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

// URLs returns the endpoints of a relationship, in the order in which they are tried. A static one has none.
func URLs(row *statev1.Relationship) []string {
	if row.GetStatic() {
		return nil
	}
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
