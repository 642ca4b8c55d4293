package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle/internal/refusal"
)

// Handler answers the requests of a bundle endpoint from memory:
//
//   - "/" with the home domain's bundle,
//   - "/bundles/NAME" with the bundle of any hosted domain, or of a foreign one that the cluster attests to as a hub,
//   - "/bundles/NAME/pem" with the X.509 authorities of a hosted domain in PEM, "/bundles/NAME/jwks" with its JWT
//     authorities as a JWK Set,
//   - "/bundles" with the bundle map,
//   - "/bundles/NAME/statements?from=N" with the signed statements on a domain's bundle from sequence N on.
//
// At the host name of one domain, "/" is that domain's bundle, its statements are there too, and nothing else is. At
// the host of a domain's [Issuer], below the issuer's path, are its OpenID Connect discovery document and its keys.
//
// It serves the last publication to every client, without authentication. It is safe for concurrent use.
type Handler struct {
	now      func() time.Time
	state    atomic.Pointer[State]
	current  atomic.Pointer[rendered]
	home     spiffeid.TrustDomain // zero: none
	requests map[int]prometheus.Counter
	render   prometheus.Histogram
	// attested counts the foreign domains in the map, leftOut those that do not fit into it.
	attested, leftOut prometheus.Gauge
}

// NewHandler returns a handler that answers 503 until the first publication. If registerer is nil, there are no
// metrics.
func NewHandler(registerer prometheus.Registerer) (*Handler, error) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "entente_bundle_endpoint_requests_total",
		Help: "Requests answered by the bundle endpoint, by status code.",
	}, []string{"code"})
	h := &Handler{
		now:      time.Now,
		requests: make(map[int]prometheus.Counter),
		render: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "entente_bundle_endpoint_render_seconds",
			Help:    "Time to render a publication for the bundle endpoint.",
			Buckets: prometheus.ExponentialBuckets(1e-5, 4, 10),
		}),
		attested: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "entente_bundle_endpoint_map_attested",
			Help: "Foreign domains in the bundle map that this member serves, to which the cluster attests.",
		}),
		leftOut: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "entente_bundle_endpoint_map_left_out",
			Help: "Foreign domains to which the cluster attests, and which do not fit into the bundle map.",
		}),
	}
	for _, code := range []int{
		http.StatusOK, http.StatusNotModified, http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusMisdirectedRequest, http.StatusServiceUnavailable,
	} {
		h.requests[code] = requests.WithLabelValues(fmt.Sprint(code))
	}
	if err := registerMetrics(registerer, requests, h.render, h.attested, h.leftOut); err != nil {
		return nil, err
	}
	return h, nil
}

// State returns what marks the answers of a handler in the header [StateHeader], or "" if nothing does, and an error if
// the handler must not answer: then requests receive 503 with its text. It is called for each request and must not
// block.
type State func() (mark string, err error)

// StateHeader is the header that marks answers, see [State].
const StateHeader = "Entente-State"

// SetState sets the source of the handler's state. Without one, the handler answers as soon as something is published.
func (h *Handler) SetState(s State) { h.state.Store(&s) }

// SetHome sets the domain whose SVID is presented before the first publication. Without it, handshakes fail until then.
// It must be called before the handler serves.
func (h *Handler) SetHome(td spiffeid.TrustDomain) { h.home = td }

// Publish replaces the publication. It fails and keeps the present one if the home domain has no bundle, if two bundles
// have one domain, or if two domains have one host.
func (h *Handler) Publish(p Publication) error {
	start := h.now()
	r, err := render(p)
	if err != nil {
		return fmt.Errorf("publish bundles: %w", err)
	}
	h.current.Store(r)
	h.attested.Set(float64(r.attested))
	h.leftOut.Set(float64(r.leftOut))
	h.render.Observe(h.now().Sub(start).Seconds())
	return nil
}

// MapLeftOut returns the number of domains of the publication that do not fit into the map.
func (h *Handler) MapLeftOut() int {
	if r := h.current.Load(); r != nil {
		return r.leftOut
	}
	return 0
}

// errNothingPublished is the error of a handshake before the first publication.
var errNothingPublished = errors.New("no bundle has been published yet")

// domainOf returns the domain whose SVID is presented to a client that names serverName by SNI.
func (h *Handler) domainOf(_ context.Context, serverName string) (spiffeid.TrustDomain, error) {
	r := h.current.Load()
	if r == nil && !h.home.IsZero() {
		return h.home, nil
	}
	if r == nil {
		return spiffeid.TrustDomain{}, errNothingPublished
	}
	if td, ok := r.domains[CanonicalHost(serverName)]; ok {
		return td, nil
	}
	return r.home, nil
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if state := h.state.Load(); state != nil {
		mark, err := (*state)()
		if err != nil {
			w.Header().Set("Retry-After", "1")
			h.refuse(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		if mark != "" {
			w.Header().Set(StateHeader, mark)
		}
	}
	current := h.current.Load()
	if current == nil {
		w.Header().Set("Retry-After", "1")
		h.refuse(w, http.StatusServiceUnavailable, "no bundle has been published yet; try again in a moment")
		return
	}
	host := requestHost(req)
	serverName := ""
	if req.TLS != nil {
		serverName = CanonicalHost(req.TLS.ServerName)
	}
	own := current.hosts[host]
	// A certificate proves one name. A request for another name is not answered on that connection. The host of one
	// domain is served only to clients whose handshake named it.
	if serverName != host && (serverName != "" || own != nil) {
		h.refuse(
			w,
			http.StatusMisdirectedRequest,
			"this connection was opened for another host name; open one for "+refusal.Clip(host),
		)
		return
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		h.refuse(w, http.StatusMethodNotAllowed, "a bundle endpoint is read with GET")
		return
	}
	a := current.find(own, host, req.URL.Path)
	if s := current.statementsAt(host, req.URL.Path); a == nil && s != nil {
		var ok bool
		if a, ok = statementsDocument(s, req.URL.RawQuery); !ok {
			h.refuse(
				w,
				http.StatusBadRequest,
				"from is not a whole number; set it to the lowest sequence of the statements",
			)
			return
		}
	}
	if a == nil {
		h.refuse(w, http.StatusNotFound, "no bundle is published at "+refusal.Clip(req.URL.Path))
		return
	}
	header := w.Header()
	a.header(header)
	if fields := req.Header["If-None-Match"]; len(fields) > 0 && noneMatch(fields, a.etag) {
		h.requests[http.StatusNotModified].Inc()
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header["Content-Type"] = a.contentType
	header["Content-Length"] = a.lengths
	h.requests[http.StatusOK].Inc()
	if req.Method == http.MethodGet {
		_, _ = w.Write(a.body) // an error means that the client has gone
	}
}

// find returns the answer for a path. own is the bundle of the host's domain, or nil.
func (r *rendered) find(own *cachedDocument, host, path string) *cachedDocument {
	switch {
	case r.issuers[host+path] != nil:
		return r.issuers[host+path]
	case own != nil && path == "/":
		return own
	case own != nil:
		return nil
	case path == "/bundles":
		return r.bundles()
	case r.paths[path] != nil:
		return r.paths[path]
	case r.forms[path] != nil:
		return r.forms[path]()
	}
	return r.foreign.find(path)
}

func (h *Handler) refuse(w http.ResponseWriter, code int, sentence string) {
	h.requests[code].Inc()
	http.Error(w, sentence, code)
}

// requestHost returns the host of a request, without its port. A request of HTTP/1.0 may have none; then it is the name
// of the connection.
func requestHost(req *http.Request) string {
	host := req.Host
	if host == "" && req.TLS != nil {
		host = req.TLS.ServerName
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.IndexByte(host[i:], ']') < 0 {
		host = host[:i]
	}
	host = CanonicalHost(strings.Trim(host, "[]"))
	if net.ParseIP(host) != nil {
		return "" // SNI has no addresses: such a request has no host name
	}
	return host
}

// noneMatch evaluates If-None-Match (RFC 9110, section 13.1.2) by weak comparison: it reports whether the client has
// the document of etag. A malformed list counts as ended.
func noneMatch(fields []string, etag string) bool {
	for _, field := range fields {
		rest := strings.TrimLeft(field, " \t")
		if strings.TrimRight(rest, " \t") == "*" {
			return true
		}
		for rest != "" {
			rest = strings.TrimLeft(rest, " \t,")
			tag := strings.TrimPrefix(rest, "W/")
			if len(tag) < 2 || tag[0] != '"' {
				break
			}
			end := strings.IndexByte(tag[1:], '"')
			if end < 0 {
				break
			}
			if tag[:end+2] == etag {
				return true
			}
			rest = tag[end+2:]
		}
	}
	return false
}
