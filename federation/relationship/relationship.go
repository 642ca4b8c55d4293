package relationship

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
)

const (
	// DefaultMaxStaleJWT is after how long without refresh JWT keys, which carry no dates, count as expired.
	DefaultMaxStaleJWT = 7 * 24 * time.Hour
	// maxWebRootsBytes bounds the roots of one relationship; a private list is a handful of certificates of some 2 KB
	// each.
	maxWebRootsBytes = 64 << 10
	// maxMaxStale bounds max_stale: what is longer means never, and is said by leaving it out.
	maxMaxStale = 10 * 365 * 24 * time.Hour
)

// Relationship is the agreement to trust one foreign trust domain. [ParseRelationship] makes one; it is valid and does
// not change.
type Relationship struct {
	TrustDomain spiffeid.TrustDomain
	// Endpoint is where its bundle comes from, and how that proves itself.
	Endpoint endpoint.Remote
	// Endpoints are all that serve it, in the order in which they are tried; Endpoint is the first.
	Endpoints []endpoint.Remote
	// Serving is what the operator gave to verify an https_spiffe endpoint in another domain by; nil: that domain's
	// stored bundle.
	Serving *bundle.Bundle
	// Kinds says which authorities are relied on, Limits what a fetch may cost.
	Kinds  Kinds
	Limits Limits
	// MaxStaleX509 and MaxStaleJWT say after how long without refresh authorities of a kind count as expired. Zero:
	// never.
	MaxStaleX509, MaxStaleJWT time.Duration
	Suspended                 bool
	// InForce says that it is acted on: it is not suspended, and whoever has to consent does.
	InForce bool
	// Agreement is the ID of what both sides have to consent to; empty: nobody else has to, or another relationship
	// stands for it. Agreed says that both do, AgreementEnded that the other side has ended it.
	Agreement              string
	Agreed, AgreementEnded bool
	// Peer is the cluster that hosts the domain, where a stream is kept with it; else nil.
	Peer *Peer
	// Attest says that the cluster, as a hub, vouches for the domain; Hub what it takes from the domain's cluster as
	// one, else nil.
	Attest bool
	Hub    *Hub
	// HubStanding is that of the hub's map, and HubRecorded its last success that was known when that was written.
	HubStanding Standing
	HubRecorded time.Time
	// Created is when the operator made it.
	Created time.Time
	// Generation rises with every decision of an operator on this relationship.
	Generation uint64
	// Standing is as the row has it, and Recorded the last success that was known when it was written.
	Standing Standing
	Recorded time.Time
	// Alarms that stand, by name.
	Alarms []string
}

// Parse reads a stored relationship, or one that an operator asks for. The error says what is wrong with which field.
func Parse(row *statev1.Relationship) (*Relationship, error) {
	r := &Relationship{
		Suspended:  row.GetSuspended(),
		Generation: row.GetGeneration(),
		Standing:   StandingOf(row.GetStanding()),
		Alarms:     AlarmsOf(row),
		InForce:    InForce(row),
		Attest:     row.GetAttest(),
		Created:    row.GetCreateTime().AsTime(),
	}
	if a := row.GetAgreement(); a != nil && !a.GetLinkedHome() {
		r.Agreement, r.Agreed, r.AgreementEnded = a.GetId(), Agreed(a), a.GetEndTime() != nil
	}
	if row.GetHubStanding() != nil {
		r.HubStanding = StandingOf(row.GetHubStanding())
		if t := row.GetHubStanding().GetLastSuccessTime(); t.IsValid() {
			r.HubRecorded = t.AsTime()
		}
	}
	if t := row.GetStanding().GetLastSuccessTime(); t.IsValid() {
		r.Recorded = t.AsTime()
	}
	var err error
	if r.TrustDomain, err = ParseTrustDomain(row.GetTrustDomain()); err != nil {
		return nil, err
	}
	if r.Endpoints, err = parseEndpoints(r, row); err != nil {
		return nil, err
	}
	r.Endpoint = r.Endpoints[0]
	if r.Serving, err = parseServing(r.Endpoint, row.GetServingBundle()); err != nil {
		return nil, err
	}
	if r.Kinds, err = parseKinds(row); err != nil {
		return nil, err
	}
	if r.Limits, err = parseLimits(row); err != nil {
		return nil, err
	}
	if r.Hub, err = ParseHub(row.GetHub()); err != nil {
		return nil, err
	}
	if r.Attest && (!r.Kinds.X509 || !r.Kinds.JWT) {
		return nil, errors.New(
			"attest does not go with authority_kinds: a part of a bundle under the sequence of the whole would contradict what the domain itself shows",
		)
	}
	if r.Peer, err = parsePeer(row.GetPeer()); err != nil {
		return nil, err
	}
	if r.MaxStaleJWT, err = parseMaxStale("max_stale_jwt", row.GetMaxStaleJwt(), DefaultMaxStaleJWT); err != nil {
		return nil, err
	}
	if r.MaxStaleX509, err = parseMaxStale("max_stale_x509", row.GetMaxStaleX509(), 0); err != nil {
		return nil, err
	}
	return r, nil
}

// ParseTrustDomain reads the name of a trust domain, and nothing that merely contains one.
func ParseTrustDomain(name string) (spiffeid.TrustDomain, error) {
	if name == "" {
		return spiffeid.TrustDomain{}, errors.New(
			"trust_domain is missing; name the foreign trust domain, such as us.example.org",
		)
	}
	td, err := bundle.ParseTrustDomain(name)
	if err != nil {
		return spiffeid.TrustDomain{}, fmt.Errorf(
			"trust_domain %s is not the name of a trust domain; write at most 255 lower-case letters, digits, "+
				"dots, dashes and underscores, without scheme or path",
			Quote(name),
		)
	}
	return td, nil
}

// parseEndpoint reads one endpoint; field is where its URL stands.
func parseEndpoint(td spiffeid.TrustDomain, row *statev1.Relationship, field, url string) (endpoint.Remote, error) {
	if url == "" {
		return endpoint.Remote{}, errors.New(
			field + " is missing; name the peer's bundle endpoint, such as https://bundle.us.example.org:7443/",
		)
	}
	if _, err := endpoint.ParseURL(url); err != nil {
		return endpoint.Remote{}, fmt.Errorf("%s is refused: %w; write https://HOST[:PORT][/PATH]", field, err)
	}
	switch ententev1.EndpointProfile(row.GetProfile()) {
	case ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE:
		if len(row.GetWebRoots()) > 0 {
			return endpoint.Remote{}, errors.New(
				"web_roots belong to profile https_web; leave them out for https_spiffe, where the endpoint proves itself by an X509-SVID",
			)
		}
		id, err := parseEndpointID(row.GetEndpointSpiffeId())
		if err != nil {
			return endpoint.Remote{}, err
		}
		return endpoint.NewSPIFFE(td, url, id)
	case ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB:
		if row.GetEndpointSpiffeId() != "" {
			return endpoint.Remote{}, errors.New(
				"endpoint_spiffe_id belongs to profile https_spiffe; leave it out for https_web, where the endpoint proves its host name",
			)
		}
		if n := len(row.GetWebRoots()); n > maxWebRootsBytes {
			return endpoint.Remote{}, fmt.Errorf("web_roots have %d bytes; %d are the most", n, maxWebRootsBytes)
		}
		ep, err := endpoint.NewWeb(td, url, row.GetWebRoots())
		if err != nil {
			return endpoint.Remote{}, fmt.Errorf(
				"web_roots are refused: %w; give PEM certificates and nothing else",
				err,
			)
		}
		return ep, nil
	default:
		return endpoint.Remote{}, errors.New(
			"profile is missing; say https_spiffe or https_web, as the peer serves it: it is never guessed",
		)
	}
}

func parseEndpointID(raw string) (spiffeid.ID, error) {
	if raw == "" {
		return spiffeid.ID{}, errors.New(
			"endpoint_spiffe_id is missing; profile https_spiffe needs the SPIFFE ID that the endpoint presents, " +
				"such as spiffe://us.example.org/entente/bundle-endpoint",
		)
	}
	id, err := bundle.ParseID(raw)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf(
			"endpoint_spiffe_id %s is not a SPIFFE ID; write spiffe://TRUST_DOMAIN/PATH",
			Quote(raw),
		)
	}
	if id.Path() == "" {
		return spiffeid.ID{}, fmt.Errorf(
			"endpoint_spiffe_id %s has no path; an endpoint presents a leaf X509-SVID, whose ID has one",
			Quote(raw),
		)
	}
	return id, nil
}

func parseMaxStale(field string, d *durationpb.Duration, absent time.Duration) (time.Duration, error) {
	if d == nil {
		return absent, nil
	}
	if err := d.CheckValid(); err != nil || d.AsDuration() <= 0 || d.AsDuration() > maxMaxStale {
		return 0, fmt.Errorf(
			"%s must be more than 0 and at most %d days; leave it out for the default",
			field,
			int(maxMaxStale/(24*time.Hour)),
		)
	}
	return d.AsDuration(), nil
}

// Quote shows a value from outside in an error, whatever it holds and however long it is.
func Quote(s string) string {
	const most = 100
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
