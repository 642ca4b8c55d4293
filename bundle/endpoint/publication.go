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

// Publication is everything that an endpoint serves. [Handler.Publish] takes it as a whole, so that a reader never sees
// a part of a change.
type Publication struct {
	// Home is the domain of "/", whose SVID is presented by default. It is one of Hosted.
	Home spiffeid.TrustDomain
	// Hosted are the bundles of the domains that the cluster hosts.
	Hosted []Hosted
	// Attested are the bundles that a hub attests to. They have paths of their own, and are in the map. Those that do
	// not fit into the bounds of a map, the last by name, are left out of it.
	Attested []bundle.MapEntry
}

// Hosted is the bundle of a hosted domain.
type Hosted struct {
	Bundle *bundle.Bundle
	// Host is the endpoint's host name for this domain alone, or empty.
	Host string
	// Issuer is the URL under which verifiers of OpenID Connect accept the domain's tokens, or zero. Its discovery
	// document and its keys are at its host, below its path.
	Issuer Issuer
	// Statements are the signed statements on the bundle, or nil.
	Statements *statement.List
}

// rendered is a publication in the form in which it is sent. It is never changed.
type rendered struct {
	home    spiffeid.TrustDomain
	paths   map[string]*cachedDocument // by path, for requests without a host of one domain; without the map
	hosts   map[string]*cachedDocument // "/" of each host of one domain
	domains map[string]spiffeid.TrustDomain
	issuers map[string]*cachedDocument // by host and path
	// statements on bundles, by path
	statements map[string]*statement.List
	bundles    func() *cachedDocument // the map, rendered at the first request
	// forms are the other forms of hosted bundles, by path, rendered at the first request.
	forms   map[string]func() *cachedDocument
	foreign foreign
	// attested counts the foreign domains in the map, leftOut those that do not fit.
	attested, leftOut int
}

// cachedDocument is a document with its header fields, in the form of net/http. All responses share the slices.
type cachedDocument struct {
	body               []byte
	etag               string
	etagField, lengths []string
	cacheControl       []string
	contentType        []string
}

func newCachedDocument(body []byte) *cachedDocument {
	sum := sha256.Sum256(body)
	etag := `"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"`
	return &cachedDocument{
		body:         body,
		etag:         etag,
		etagField:    []string{etag},
		lengths:      []string{strconv.Itoa(len(body))},
		cacheControl: cacheControlField,
		contentType:  contentTypeField,
	}
}

// newForm returns a document in a format.
func newForm(b *bundle.Bundle, format bundle.Format) *cachedDocument {
	body, err := format.Marshal(b)
	if err != nil {
		return nil // impossible: the keys of a bundle have been written before
	}
	a := newCachedDocument(body)
	a.contentType = []string{format.ContentType()}
	return a
}

// The header fields of bundles. With no-cache, a cache validates a document at each use: a revoked key has to go at
// once, and an unchanged document costs one 304.
var (
	contentTypeField  = []string{"application/json"}
	cacheControlField = []string{"no-cache"}
)

func (a *cachedDocument) header(h http.Header) {
	h["Etag"] = a.etagField
	h["Cache-Control"] = a.cacheControl
}

func render(p Publication) (*rendered, error) {
	r := &rendered{
		home:       p.Home,
		paths:      make(map[string]*cachedDocument, len(p.Hosted)+1),
		hosts:      make(map[string]*cachedDocument),
		domains:    make(map[string]spiffeid.TrustDomain),
		issuers:    make(map[string]*cachedDocument),
		statements: make(map[string]*statement.List),
		forms:      make(map[string]func() *cachedDocument, 2*len(p.Hosted)),
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
		a := newCachedDocument(hosted.Bundle.Marshal())
		r.paths["/bundles/"+td.Name()] = a
		for _, format := range []bundle.Format{bundle.FormatPEM, bundle.FormatJWKS} {
			r.forms["/bundles/"+td.Name()+"/"+string(format)] = sync.OnceValue(func() *cachedDocument {
				return newForm(hosted.Bundle, format)
			})
		}
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
	r.attested, r.leftOut = len(all)-len(own), leftOut
	r.foreign = newForeign(p.Attested)
	r.bundles = sync.OnceValue(func() *cachedDocument {
		body, err := bundle.MarshalEntries(all)
		if err != nil {
			return nil // impossible: each domain occurs once
		}
		return newCachedDocument(body)
	})
	return r, nil
}

// addIssuer renders the documents below a domain's issuer, if it has one.
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
		a := newCachedDocument(body)
		a.cacheControl = caching
		if path == jwksPath {
			a.contentType = []string{bundle.FormatJWKS.ContentType()}
		}
		r.issuers[at] = a
	}
	return nil
}
