package endpoint

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
)

// Publication is all that an endpoint serves. It is given to [Handler.Publish] as a whole, so that a reader never
// sees a part of a change.
type Publication struct {
	// Home is the domain whose bundle stands at "/" and whose SVID is presented where no other is asked for.
	// It is one of Hosted.
	Home spiffeid.TrustDomain
	// Hosted are the bundles of the domains that the cluster is the authority for.
	Hosted []Hosted
	// Attested are the bundles that a hub vouches for. They are in the map, and have no path of their own. What does
	// not fit into a map, of [MaxMapDomains] and [MaxMapBytes], is left out, by name.
	Attested []bundle.MapEntry
}

// Hosted is the bundle of a hosted domain.
type Hosted struct {
	Bundle *bundle.Bundle
	// Host is the endpoint's host name for this domain alone, or empty.
	Host string
	// Issuer is by what URL verifiers of OpenID Connect know the domain; the zero value: by none. At its host and below
	// its path stand its discovery document and its keys.
	Issuer Issuer
	// Statements are the signed statements on the bundle; nil: there are none.
	Statements *statement.List
}

// rendered is a publication ready to be sent. It is never changed.
type rendered struct {
	home    spiffeid.TrustDomain
	paths   map[string]*answer // where no host name of its own is asked for; without the map
	hosts   map[string]*answer // "/" of each host name of its own
	domains map[string]spiffeid.TrustDomain
	issuers map[string]*answer // by host and path
	// statements on bundles, by path
	statements map[string]*statement.List
	bundles    func() *answer // the map, rendered when it is first asked for
	// vouched counts the foreign domains in the map, leftOut those that do not fit.
	vouched, leftOut int
}

// answer is a document with its header fields, as net/http keeps them. The slices are shared by all responses.
type answer struct {
	body               []byte
	etag               string
	etagField, lengths []string
	cacheControl       []string
}

func newAnswer(body []byte) *answer {
	sum := sha256.Sum256(body)
	etag := `"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"`
	return &answer{
		body:         body,
		etag:         etag,
		etagField:    []string{etag},
		lengths:      []string{strconv.Itoa(len(body))},
		cacheControl: cacheControlField,
	}
}

// The header fields of bundles. no-cache lets a cache keep a document but not hand it out without asking:
// a revoked key has to go at once, and an unchanged document costs one 304.
var (
	contentTypeField  = []string{"application/json"}
	cacheControlField = []string{"no-cache"}
)

func (a *answer) header(h http.Header) {
	h["Etag"] = a.etagField
	h["Cache-Control"] = a.cacheControl
}

func render(p Publication) (*rendered, error) {
	r := &rendered{
		home:       p.Home,
		paths:      make(map[string]*answer, len(p.Hosted)+1),
		hosts:      make(map[string]*answer),
		domains:    make(map[string]spiffeid.TrustDomain),
		issuers:    make(map[string]*answer),
		statements: make(map[string]*statement.List),
	}
	own := make([]bundle.MapEntry, 0, len(p.Hosted))
	seen := make(map[spiffeid.TrustDomain]bool, len(p.Hosted)+len(p.Attested))
	for _, hosted := range p.Hosted {
		td := hosted.Bundle.TrustDomain()
		if seen[td] {
			return nil, fmt.Errorf("%w: %s", bundle.ErrDuplicateTrustDomain, td)
		}
		seen[td] = true
		entry, err := bundle.NewMapEntry(hosted.Bundle)
		if err != nil {
			return nil, err
		}
		own = append(own, entry)
		a := newAnswer(hosted.Bundle.Marshal())
		r.paths["/bundles/"+td.Name()] = a
		if td == p.Home {
			r.paths["/"] = a
		}
		statements := hosted.Statements
		if statements == nil {
			statements = statement.NewList(td, nil)
		}
		r.statements["/bundles/"+td.Name()+statementsPath] = statements
		if err := r.addIssuer(hosted); err != nil {
			return nil, err
		}
		if hosted.Host == "" {
			continue
		}
		host := CanonicalHost(hosted.Host)
		if other, ok := r.domains[host]; ok {
			return nil, fmt.Errorf("%s and %s both have the endpoint host %q; give each its own", other, td, host)
		}
		r.hosts[host], r.domains[host] = a, td
	}
	if r.paths["/"] == nil {
		return nil, fmt.Errorf("there is no hosted bundle of the home domain %s", p.Home)
	}
	for _, v := range p.Attested {
		if seen[v.TrustDomain] {
			return nil, fmt.Errorf("%w: %s", bundle.ErrDuplicateTrustDomain, v.TrustDomain)
		}
		seen[v.TrustDomain] = true
	}
	all, leftOut := bundle.FitMap(own, p.Attested)
	r.vouched, r.leftOut = len(all)-len(own), leftOut
	r.bundles = sync.OnceValue(func() *answer {
		body, err := bundle.MarshalEntries(all)
		if err != nil {
			return nil // cannot be: each domain occurs once
		}
		return newAnswer(body)
	})
	return r, nil
}

// addIssuer renders what stands below a domain's issuer, if it has one.
func (r *rendered) addIssuer(hosted Hosted) error {
	i := hosted.Issuer
	if i.IsZero() {
		return nil
	}
	config, keys, err := i.documents(hosted.Bundle)
	if err != nil {
		return err
	}
	caching := []string{oidcCaching(hosted.Bundle)}
	for path, body := range map[string][]byte{discoveryPath: config, jwksPath: keys} {
		at := i.host + i.path + path
		if r.issuers[at] != nil {
			return fmt.Errorf(
				"two hosted domains, %s among them, have an issuer at %s%s; give each its own",
				hosted.Bundle.TrustDomain(),
				i.host,
				i.path,
			)
		}
		a := newAnswer(body)
		a.cacheControl = caching
		r.issuers[at] = a
	}
	return nil
}
