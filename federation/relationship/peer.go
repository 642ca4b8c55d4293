package relationship

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/internal/egress"
)

const (
	// MaxPeerAddresses bounds where a peer is looked for: a cluster has three or five members.
	MaxPeerAddresses = 9
	// maxAddressBytes is the longest name in the DNS with a port.
	maxAddressBytes = 253 + 6
)

// Peer is the cluster that hosts a foreign trust domain, if it runs Entente and a stream is kept with it.
type Peer struct {
	// Home is its home trust domain: only its members, spiffe://<home>/entente/member/<id>, can open or answer the
	// stream.
	Home spiffeid.TrustDomain
	// Addresses are the cluster ports of its members. Without any, only the peer can open the stream.
	Addresses []string
}

// parsePeer parses the peer of a relationship. It returns nil if there is none.
func parsePeer(row *statev1.RelationshipPeer) (*Peer, error) {
	if row == nil {
		return nil, nil
	}
	if row.GetHomeTrustDomain() == "" {
		return nil, errors.New(
			"peer.home_trust_domain is missing; name the home trust domain of the peer's cluster, such as " +
				"us.example.org",
		)
	}
	home, err := ParseTrustDomain(row.GetHomeTrustDomain())
	if err != nil {
		return nil, fmt.Errorf("peer.home_trust_domain: %w", err)
	}
	addresses, err := ParseAddresses("peer.addresses", row.GetAddresses())
	if err != nil {
		return nil, err
	}
	return &Peer{Home: home, Addresses: addresses}, nil
}

// ParseAddresses parses the addresses of a cluster's members, and returns each once. field names them in errors.
func ParseAddresses(field string, raw []string) (addresses []string, err error) {
	if n := len(raw); n > MaxPeerAddresses {
		return nil, fmt.Errorf("%s names %d addresses; %d are the most", field, n, MaxPeerAddresses)
	}
	for _, address := range raw {
		host, port, err := net.SplitHostPort(address)
		n, bad := strconv.ParseUint(port, 10, 16)
		if err != nil || bad != nil || host == "" || n == 0 || len(address) > maxAddressBytes {
			return nil, fmt.Errorf(
				"%s names %s; write HOST:PORT of the cluster port of a member, such as us-1.example.org:7440",
				field, Quote(address),
			)
		}
		if !slices.Contains(addresses, address) {
			addresses = append(addresses, address)
		}
	}
	return addresses, nil
}

// PeerPlan is what the relationships in force require of one peer.
type PeerPlan struct {
	// Home is the home trust domain of the peer.
	Home      string
	Addresses []string
	// Route is the way to them. If nil, it is the member's own.
	Route *egress.Route
	// Wanted holds the trust domains of the relationships that name the peer, with what is stored of each.
	Wanted map[string]Holding
	// Hubs holds those of them whose cluster is a hub.
	Hubs map[string]*Relationship
}
