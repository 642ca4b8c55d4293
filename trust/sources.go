package trust

import (
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust/standing"
)

// Hosted supplies the trust domains that this cluster hosts. The authority room owns its tables.
type Hosted struct {
	// Hosts reports whether the cluster hosts a domain.
	Hosts func(r raftstore.Reader, td string) (bool, error)
	// Domains has the hosted domains by name.
	Domains raftstore.Table[*statev1.Domain]
	// Bundles has their bundles by name. A domain that never had an authority has none.
	Bundles raftstore.Table[*statev1.Bundle]
	// Statements returns the signed statements on a domain's bundle, by sequence. It reads the rows of History below
	// the domain's name and a slash. If nil, there are no statements.
	Statements func(r raftstore.Reader, td string) ([]string, error)
	History    raftstore.Table[*statev1.BundleVersion]
}

// Foreign supplies the trust domains that this cluster federates with. The federation room owns its tables and rules.
type Foreign struct {
	// Relationships and Bundles are keyed by the name of the domain, Attestations by the domain, a slash and the hub.
	Relationships raftstore.Table[*statev1.Relationship]
	Bundles       raftstore.Table[*statev1.Bundle]
	Attestations  raftstore.Table[*statev1.HubBundle]
	// Status returns the status of the domain of a relationship.
	Status func(*statev1.Relationship) standing.Status
	// Attest returns the attestation that counts for a domain without a relationship, and whether there is one.
	Attest func(r raftstore.Reader, td string) (Attestation, bool, error)
	// Usable returns the part of a bundle that its relationship allows the cluster to use.
	Usable func(*statev1.Relationship, *bundle.Bundle) (*bundle.Bundle, error)
	// Attested reports whether this cluster, as a hub, attests to the bundle of a relationship: it puts it into the
	// bundle map that it serves.
	Attested func(*statev1.Relationship) bool
}

// Attestation is the bundle of a trust domain as a hub serves it.
type Attestation struct {
	Hub string
	Row raftstore.Row[*statev1.HubBundle]
	// Status is the status of the domain by this attestation.
	Status standing.Status
	// Others are further hubs whose attestation would count without this one, by name.
	Others []string
}

// bundle returns the attestation as a stored bundle.
func (a Attestation) bundle(td string) raftstore.Row[*statev1.Bundle] {
	v := a.Row.Value
	return raftstore.Row[*statev1.Bundle]{Key: td, Revision: a.Row.Revision, Value: &statev1.Bundle{
		TrustDomain: td, Document: v.GetDocument(), ChangeTime: v.GetChangeTime(), RetrieveTime: v.GetRetrieveTime(),
	}}
}

// Origin is where trust in a domain comes from.
type Origin uint8

const (
	// None is a domain that is neither hosted nor federated with.
	None Origin = iota
	// ByHosting is a domain that this cluster hosts.
	ByHosting
	// ByRelationship is a domain that this cluster has a relationship with.
	ByRelationship
	// ByAttestation is a domain that a hub attests to.
	ByAttestation
)

// Decision is what counts for a trust domain in one state of the store.
type Decision struct {
	Origin Origin
	Status standing.Status
	// Relationship is set if Origin is [ByRelationship].
	Relationship raftstore.Row[*statev1.Relationship]
	// Attestation is set if Origin is [ByAttestation].
	Attestation Attestation
}

// Sentence describes the state of td to an operator, with who suspended its relationship and when, and the command that
// helps.
func (d Decision) Sentence(td spiffeid.TrustDomain) string {
	by := d.Relationship.Value.GetSuspension()
	if d.Status.State != standing.Suspended || by == nil {
		return d.Status.State.Sentence(td)
	}
	return fmt.Sprintf("the relationship with %s is suspended, since %s by %s; resume it with 'entente federation "+
		"resume %s'", td.Name(), by.GetTime().AsTime().Format(time.RFC3339), by.GetBy(), td.Name())
}

// Sources are the tables and rules that other rooms own and trust is decided by.
type Sources struct {
	Hosted  Hosted
	Foreign Foreign
}

// Decide returns what counts for a trust domain: that this cluster hosts it, else its relationship with the domain,
// else the attestation of a hub. A relationship counts even while it has no bundle. Within a transaction all that
// Decide read is a precondition of the transaction.
func (s Sources) Decide(r raftstore.Reader, td string) (Decision, error) {
	return s.decide(r, td, true)
}

// DecideWithoutRelationship returns what would count for a trust domain if there were no relationship with it.
func (s Sources) DecideWithoutRelationship(r raftstore.Reader, td string) (Decision, error) {
	return s.decide(r, td, false)
}

func (s Sources) decide(r raftstore.Reader, td string, related bool) (Decision, error) {
	hosted, err := s.Hosted.Hosts(r, td)
	if err != nil || hosted {
		return Decision{Origin: ByHosting, Status: standing.StatusOf(standing.Fresh)}, err
	}
	if related {
		row, found, err := s.Foreign.Relationships.Get(r, td)
		if err != nil {
			return Decision{}, fmt.Errorf("read the relationship with %s: %w", td, err)
		}
		if found {
			return Decision{Origin: ByRelationship, Status: s.Foreign.Status(row.Value), Relationship: row}, nil
		}
	}
	a, found, err := s.Foreign.Attest(r, td)
	if err != nil || !found {
		return Decision{}, err
	}
	return Decision{Origin: ByAttestation, Status: a.Status, Attestation: a}, nil
}

// Attestable reports whether the attestation of a hub can count for a trust domain, now or after a relationship with it
// ends. It cannot for a domain that this cluster hosts.
func (s Sources) Attestable(r raftstore.Reader, td string) (bool, error) {
	hosted, err := s.Hosted.Hosts(r, td)
	return err == nil && !hosted, err
}

// HostedNames returns the names of the hosted trust domains that have a bundle, in order.
func (s Sources) HostedNames(r raftstore.Reader) (names []string) {
	for td := range s.Hosted.Bundles.Revisions(r, "") {
		names = append(names, td)
	}
	return names
}

// Stored returns the stored bundle that a decision on td points to, and whether there is one.
func (s Sources) Stored(r raftstore.Reader, td string, d Decision) (raftstore.Row[*statev1.Bundle], bool, error) {
	switch d.Origin {
	case ByHosting:
		return s.Hosted.Bundles.Get(r, td)
	case ByRelationship:
		return s.Foreign.Bundles.Get(r, td)
	case ByAttestation:
		return d.Attestation.bundle(td), true, nil
	default:
		return raftstore.Row[*statev1.Bundle]{}, false, nil
	}
}

// revision returns the revision of the stored bundle that a decision on td points to, without decoding it.
func (s Sources) revision(r raftstore.Reader, td string, d Decision) (raftstore.Revision, bool) {
	switch d.Origin {
	case ByHosting:
		return s.Hosted.Bundles.RevisionOf(r, td)
	case ByRelationship:
		return s.Foreign.Bundles.RevisionOf(r, td)
	case ByAttestation:
		return d.Attestation.Row.Revision, true
	default:
		return 0, false
	}
}

// Domain is a trust domain with the decision on it.
type Domain struct {
	Name string
	Decision
}

// All returns the trust domains that have a stored bundle, each once.
func (s Sources) All(r raftstore.Reader) iter.Seq2[Domain, error] {
	return func(yield func(Domain, error) bool) {
		_ = s.each(r, s.Hosted.Bundles.Revisions(r, ""), ByHosting, yield) &&
			s.each(r, s.Foreign.Bundles.Revisions(r, ""), ByRelationship, yield) &&
			s.each(r, s.Foreign.Attestations.Revisions(r, ""), ByAttestation, yield)
	}
}

// each yields the domains of the keys for which the origin counts. It returns false once yield does.
func (s Sources) each(
	r raftstore.Reader, keys iter.Seq2[string, raftstore.Revision], origin Origin, yield func(Domain, error) bool,
) bool {
	last := ""
	for key := range keys {
		td := DomainOf(key)
		if td == last {
			continue // attested to by several hubs
		}
		last = td
		d, err := s.Decide(r, td)
		switch {
		case err != nil:
			yield(Domain{}, err)
			return false
		case d.Origin == origin && !yield(Domain{td, d}, nil):
			return false
		}
	}
	return true
}

// AttestedBy returns the trust domains that a hub attests to, counting or not.
func (s Sources) AttestedBy(r raftstore.Reader, hub string) (names []string) {
	for key := range s.Foreign.Attestations.Revisions(r, "") {
		if td, by, _ := strings.Cut(key, "/"); by == hub {
			names = append(names, td)
		}
	}
	return names
}

// Over returns the prefixes that decisions depend on.
func (s Sources) Over() []raftstore.Prefix {
	return []raftstore.Prefix{
		s.Hosted.Domains.Prefix(""), s.Hosted.Bundles.Prefix(""),
		s.Foreign.Relationships.Prefix(""), s.Foreign.Bundles.Prefix(""), s.Foreign.Attestations.Prefix(""),
	}
}

// DomainOf returns the trust domain that a key of a source's table begins with.
func DomainOf(key string) string {
	td, _, _ := strings.Cut(key, "/")
	return td
}
