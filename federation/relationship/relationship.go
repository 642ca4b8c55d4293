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
	"github.com/ententehq/entente/internal/egress"
)

const (
	// DefaultMaxStaleJWT is how long JWT keys, which carry no dates, count without a refresh.
	DefaultMaxStaleJWT = 7 * 24 * time.Hour
	// maxWebRootsBytes bounds the roots of one relationship: the public roots of a distribution with a company's own
	// have some 200 KiB. A row of the store is below 512 KiB.
	maxWebRootsBytes = 256 << 10
	// maxMaxStale bounds max_stale. Leaving it out means never.
	maxMaxStale = 10 * 365 * 24 * time.Hour
)

// Relationship is a parsed relationship with one foreign trust domain. [Parse] returns it. It is valid and immutable.
type Relationship struct {
	TrustDomain spiffeid.TrustDomain
	// Static means that the bundle comes from an operator alone. There is no endpoint, and nothing is fetched.
	Static bool
	// File is the name of the file with the bundle, below the folder that members configure. If it is not empty, there
	// is no endpoint.
	File string
	// Endpoint serves its bundle, and defines how it authenticates.
	Endpoint endpoint.Remote
	// Endpoints are all endpoints, in the order in which they are tried. Endpoint is the first.
	Endpoints []endpoint.Remote
	// Serving verifies an https_spiffe endpoint in another domain. If nil, that domain's stored bundle does.
	Serving *bundle.Bundle
	// Route is the way to the endpoints, and to the peer whose home domain this is. If nil, it is the member's own.
	Route *egress.Route
	// Kinds are the authorities that count, Limits the bounds of a fetch.
	Kinds  Kinds
	Limits Limits
	// PollInterval is the interval at which the bundle is fetched. Zero is the bundle's refresh hint.
	PollInterval time.Duration
	// MaxStaleX509 and MaxStaleJWT are how long authorities of a kind count without a refresh. Zero is for ever.
	MaxStaleX509, MaxStaleJWT time.Duration
	Suspended                 bool
	// InForce means that it is used: it is not suspended, and both sides consent where that is required.
	InForce bool
	// Agreement is the ID of the agreement that both sides have to consent to. It is empty if there is none, and for a
	// linked home relationship. Consented means that both consent, AgreementEnded that the other side has ended it.
	Agreement                 string
	Consented, AgreementEnded bool
	// Peer is the cluster that hosts the domain, if a stream is kept with it.
	Peer *Peer
	// Attest means that this cluster, as a hub, attests the domain. Hub is what the domain's cluster may attest here,
	// if it is a hub.
	Attest bool
	Hub    *Hub
	// HubValidity is the validity of the hub's map, and HubRecorded the last success that was known when it was
	// written.
	HubValidity Validity
	HubRecorded time.Time
	// Created is when the operator made it.
	Created time.Time
	// Generation rises with every decision of an operator on this relationship.
	Generation uint64
	// Validity is that of the row, and Recorded the last success that was known when it was written.
	Validity Validity
	Recorded time.Time
	// Alarms are the names of those that stand.
	Alarms []string
}

// Parse parses a stored or requested relationship. An error names the invalid field.
func Parse(row *statev1.Relationship) (*Relationship, error) {
	r := &Relationship{
		Suspended:  row.GetSuspended(),
		Generation: row.GetGeneration(),
		Validity:   ValidityOf(row.GetValidity()),
		Alarms:     AlarmsOf(row),
		InForce:    InForce(row),
		Attest:     row.GetAttest(),
		Created:    row.GetCreateTime().AsTime(),
	}
	if a := row.GetAgreement(); a != nil && !a.GetLinkedHome() {
		r.Agreement, r.Consented, r.AgreementEnded = a.GetId(), Consented(a), a.GetEndTime() != nil
	}
	if row.GetHubValidity() != nil {
		r.HubValidity = ValidityOf(row.GetHubValidity())
		if t := row.GetHubValidity().GetLastSuccessTime(); t.IsValid() {
			r.HubRecorded = t.AsTime()
		}
	}
	if t := row.GetValidity().GetLastSuccessTime(); t.IsValid() {
		r.Recorded = t.AsTime()
	}
	var err error
	if r.TrustDomain, err = ParseTrustDomain(row.GetTrustDomain()); err != nil {
		return nil, err
	}
	if err := parseSource(r, row); err != nil {
		return nil, err
	}
	if r.Serving, err = parseServing(r.Endpoint, row.GetServingBundle()); err != nil {
		return nil, err
	}
	if r.Route, err = parseRoute(row); err != nil {
		return nil, err
	}
	if r.Kinds, err = parseKinds(row); err != nil {
		return nil, err
	}
	if r.Limits, err = parseLimits(row); err != nil {
		return nil, err
	}
	if r.PollInterval, err = parsePollInterval(row); err != nil {
		return nil, err
	}
	if r.Hub, err = ParseHub(row.GetHub()); err != nil {
		return nil, err
	}
	if r.Attest && (!r.Kinds.X509 || !r.Kinds.JWT) {
		return nil, errors.New(
			"attest does not go with authority_kinds: a part of a bundle under the sequence of the whole would " +
				"contradict what the domain itself shows",
		)
	}
	if r.Peer, err = parsePeer(row.GetPeer()); err != nil {
		return nil, err
	}
	maxStaleJWT := DefaultMaxStaleJWT
	if r.Static {
		maxStaleJWT = 0
	}
	if r.MaxStaleJWT, err = parseMaxStale("max_stale_jwt", row.GetMaxStaleJwt(), maxStaleJWT); err != nil {
		return nil, err
	}
	if r.MaxStaleX509, err = parseMaxStale("max_stale_x509", row.GetMaxStaleX509(), 0); err != nil {
		return nil, err
	}
	return r, nil
}

// ParseTrustDomain parses the name of a trust domain, without scheme or path.
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

// parseEndpoint parses one endpoint. field is the field of its URL.
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
				"web_roots belong to profile https_web; leave them out for https_spiffe, where the endpoint proves " +
					"itself by an X509-SVID",
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
				"endpoint_spiffe_id belongs to profile https_spiffe; leave it out for https_web, where the endpoint " +
					"proves its host name",
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

// Quote quotes an untrusted value for an error, bounded and in ASCII.
func Quote(s string) string {
	const most = 100
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
