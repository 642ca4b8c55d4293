package relationship

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/standing"
)

const (
	// MaxHubPatterns bounds the names in each list of a hub. More domains than that are named by a suffix.
	MaxHubPatterns = 256
	// MapSuffix is appended to a hub's name to name the observations of its map. No trust domain has a slash.
	MapSuffix = "/bundles"
)

// HubBundles has the bundles that hubs attest, keyed by "<trust domain>/<hub>". A row counts only where the cluster
// neither hosts the domain nor has a relationship with it.
var HubBundles = raftstore.NewTable[*statev1.HubBundle]("hub_bundles", raftstore.RecordsNow)

// Hub decides which trust domains the bundle map of another cluster may attest.
type Hub struct {
	Include, Exclude []string
	// URL is where the map is served. If empty, it is beside the relationship's endpoint.
	URL string
}

// ParseHub parses the hub settings of a relationship. It returns nil if it is no hub.
func ParseHub(row *statev1.RelationshipHub) (*Hub, error) {
	if row == nil {
		return nil, nil
	}
	if len(row.GetInclude()) == 0 {
		return nil, errors.New(
			"hub.include is empty; name the trust domains that the hub may bring, or all below a name as " +
				".example.org, or leave the hub out",
		)
	}
	for field, patterns := range map[string][]string{"hub.include": row.GetInclude(), "hub.exclude": row.GetExclude()} {
		if n := len(patterns); n > MaxHubPatterns {
			return nil, fmt.Errorf("%s has %d names; %d are the most", field, n, MaxHubPatterns)
		}
		for i, p := range patterns {
			if _, err := bundle.ParseTrustDomain(strings.TrimPrefix(p, ".")); err != nil || strings.HasPrefix(p, "..") {
				return nil, fmt.Errorf(
					"%s names %s; write a trust domain, such as us.example.org, or all below a name by a leading dot, "+
						"such as .example.org",
					field,
					Quote(p),
				)
			}
			if slices.Contains(patterns[:i], p) {
				return nil, fmt.Errorf("%s names %s twice", field, Quote(p))
			}
		}
	}
	if row.GetUrl() != "" {
		if _, err := endpoint.ParseURL(row.GetUrl()); err != nil {
			return nil, fmt.Errorf(
				"hub.url is refused: %w; write https://HOST[:PORT]/PATH, or leave it out for /bundles at the "+
					"relationship's url",
				err,
			)
		}
	}
	return &Hub{row.GetInclude(), row.GetExclude(), row.GetUrl()}, nil
}

// Covers reports whether the hub may attest a trust domain: the domain is included by name or below a listed name by
// whole labels, and not excluded.
func (h *Hub) Covers(td string) bool {
	return h != nil && covers(h.Include, td) && !covers(h.Exclude, td)
}

func covers(patterns []string, td string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if strings.HasPrefix(p, ".") {
			return len(td) > len(p) && strings.HasSuffix(td, p)
		}
		return td == p
	})
}

// Attested reports whether this cluster, as a hub, has a relationship's bundle in its map: the operator enabled it, the
// relationship is in force, and the bundle verifies. A bundle from another hub has no relationship of its own and is
// not passed on.
func Attested(row *statev1.Relationship) bool {
	return row.GetAttest() && TrustOf(row).State.Verifiable()
}

// attestationOf returns the attestation that counts for a trust domain without a relationship: that of the first hub by
// name whose relationship is in force and covers the domain. If there is only one of a suspended hub, that one is
// returned, with its status.
func attestationOf(r raftstore.Reader, td string) (trust.Attestation, bool, error) {
	var word, suspended trust.Attestation
	for row, err := range HubBundles.All(r, td+"/") {
		if err != nil {
			return trust.Attestation{}, false, fmt.Errorf("read the attestations of %s: %w", td, err)
		}
		hub, found, err := Relationships.Get(r, row.Value.GetHub())
		if err != nil {
			return trust.Attestation{}, false, fmt.Errorf(
				"read the relationship with the hub %s: %w",
				row.Value.GetHub(),
				err,
			)
		}
		switch {
		case !found || !Attests(hub.Value, row.Value):
		case !InForce(hub.Value) && suspended.Hub == "":
			suspended = trust.Attestation{Hub: hub.Key, Row: row, Status: TrustOf(hub.Value)}
		case !InForce(hub.Value):
		case word.Hub == "":
			word = trust.Attestation{Hub: hub.Key, Row: row, Status: trustByAttestation(hub.Value, row.Value)}
		default:
			word.Others = append(word.Others, hub.Key)
		}
	}
	if word.Hub == "" {
		word = suspended
	}
	return word, word.Hub != "", nil
}

// Attests reports whether an attestation is still covered by the hub's relationship.
func Attests(hub *statev1.Relationship, word *statev1.HubBundle) bool {
	h := hub.GetHub()
	return AttestedUnder(hub, word) && covers(h.GetInclude(), word.GetTrustDomain()) &&
		!covers(h.GetExclude(), word.GetTrustDomain())
}

// AttestedUnder reports whether an attestation was made under this relationship, not under an earlier one with the same
// hub.
func AttestedUnder(hub *statev1.Relationship, word *statev1.HubBundle) bool {
	return hub != nil && proto.Equal(hub.GetCreateTime(), word.GetRelationshipCreateTime())
}

// trustByAttestation returns the status of a domain by an attestation. It is as fresh as the hub's map, and stale if
// the hub's latest attestation was refused.
func trustByAttestation(hub *statev1.Relationship, word *statev1.HubBundle) standing.Status {
	s := hub.GetHubValidity()
	state := standing.Fresh
	if ententev1.Freshness(s.GetFreshness()) == ententev1.Freshness_FRESHNESS_STALE || word.GetRefused() != "" {
		state = standing.Stale
	}
	t := standing.Status{State: state, X509: state, JWT: state}
	if s.GetX509Expired() || word.GetX509Expired() {
		t.X509 = standing.Expired
	}
	if s.GetJwtExpired() || word.GetNoJwt() {
		t.JWT = standing.Expired
	}
	if t.X509 == standing.Expired && t.JWT == standing.Expired {
		t.State = standing.Expired
	}
	return t
}

// HubDomains lists the trust domains that hubs attest, in order, each once.
func HubDomains(r raftstore.Reader) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		last := ""
		for row, err := range HubBundles.All(r, "") {
			if err != nil {
				yield("", err)
				return
			}
			if td := row.Value.GetTrustDomain(); td != last {
				last = td
				if !yield(td, nil) {
					return
				}
			}
		}
	}
}

// HubBundle returns the bundle of an attestation.
func HubBundle(row *statev1.HubBundle) (*bundle.Bundle, error) {
	return trust.Parse(&statev1.Bundle{TrustDomain: row.GetTrustDomain(), Document: row.GetDocument()})
}

// AttestationKey returns the key of a hub's attestation of a domain.
func AttestationKey(td, hub string) string { return td + "/" + hub }

// DomainOfKey returns the trust domain of a key in any table of federation.
func DomainOfKey(key string) string {
	td, _, _ := strings.Cut(key, "/")
	return td
}
