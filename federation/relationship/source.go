package relationship

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/internal/egress"
)

// fileScheme begins the URL of a relationship whose bundle is a file on the members.
const fileScheme = "file:"

// ErrFile means that a member cannot read the file of a relationship.
var ErrFile = errors.New("the file with the bundle cannot be read")

// Fetched reports whether members fetch the bundle of a relationship, from an endpoint or a file.
func (r *Relationship) Fetched() bool { return !r.Static }

// Source describes where the bundle comes from.
func (r *Relationship) Source() string {
	switch {
	case r.Static:
		return "an operator"
	case r.File != "":
		return "file " + r.File
	}
	return "endpoint " + r.Endpoint.URL()
}

// parseSource parses where the bundle comes from: endpoints, a file, or an operator alone.
func parseSource(r *Relationship, row *statev1.Relationship) (err error) {
	switch {
	case row.GetStatic():
		r.Static = true
		return checkStatic(row)
	case strings.HasPrefix(row.GetUrl(), fileScheme):
		if err := checkWithoutEndpoint(row, "a relationship from a file"); err != nil {
			return err
		}
		r.File, err = parseFile(row.GetUrl())
		return err
	}
	if r.Endpoints, err = parseEndpoints(r, row); err != nil {
		return err
	}
	r.Endpoint = r.Endpoints[0]
	return nil
}

// parseRoute parses the way to the endpoints and to the peer. It returns nil for that of each member.
func parseRoute(row *statev1.Relationship) (*egress.Route, error) {
	if row.GetEgressProxy() == "" {
		return nil, nil
	}
	route, err := egress.ParseRoute(row.GetEgressProxy())
	if err != nil {
		return nil, fmt.Errorf("egress_proxy %s is refused: %w", Quote(row.GetEgressProxy()), err)
	}
	return &route, nil
}

// RouteOr returns the way to the endpoints of a relationship, where own is that of the member.
func (r *Relationship) RouteOr(own egress.Route) egress.Route {
	if r == nil || r.Route == nil {
		return own
	}
	return *r.Route
}

// Configure applies the limits and the way of a relationship to a client's configuration, where own is the way of the
// member. A configuration that dials by itself goes on to.
func (r *Relationship) Configure(c *endpoint.ClientConfig, own egress.Route) {
	r.Limits.Bound(c)
	if route := r.RouteOr(own); c.Dial == nil && route.Proxied() {
		c.Dial = route.DialContext
	}
}

// checkStatic refuses the settings of fetches.
func checkStatic(row *statev1.Relationship) error {
	const what = "a static relationship"
	if err := checkWithoutEndpoint(row, what); err != nil {
		return err
	}
	for field, set := range map[string]bool{
		"url": row.GetUrl() != "", "poll_interval": row.GetPollInterval() != nil,
		"fetch_timeout": row.GetFetchTimeout() != nil, "max_document_bytes": row.GetMaxDocumentBytes() != 0,
	} {
		if set {
			return withoutField(field, what)
		}
	}
	return nil
}

// checkWithoutEndpoint refuses the settings of endpoints, and of other ways by which the bundle could come.
func checkWithoutEndpoint(row *statev1.Relationship, what string) error {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"profile", row.GetProfile() != int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_UNSPECIFIED)},
		{"fallback_urls", len(row.GetFallbackUrls()) > 0},
		{"endpoint_spiffe_id", row.GetEndpointSpiffeId() != ""},
		{"web_roots", len(row.GetWebRoots()) > 0},
		{"serving_bundle", len(row.GetServingBundle()) > 0},
		{"egress_proxy", row.GetEgressProxy() != ""},
		{"peer", row.GetPeer() != nil},
		{"hub", row.GetHub() != nil},
	} {
		if f.set {
			return withoutField(f.name, what)
		}
	}
	if row.GetAgreement() != nil {
		return fmt.Errorf("the relationship was made by an agreement, by which both sides announce their endpoints; "+
			"delete it before you create %s", what)
	}
	return nil
}

func withoutField(field, what string) error {
	return fmt.Errorf("%s does not go with %s; leave it out", field, what)
}

// parseFile parses the URL of a file: file:///NAME, where NAME lies below the folder that members configure.
func parseFile(raw string) (string, error) {
	const remedy = "write file:///NAME, for a file below the members' federation.bundle_dir"
	u, err := url.Parse(raw)
	if err != nil || u.Host != "" || u.Opaque != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil ||
		len(raw) > 255 {
		return "", fmt.Errorf("url %s is not the name of a file; %s", Quote(raw), remedy)
	}
	name := strings.TrimPrefix(u.Path, "/")
	if name != filepath.Clean(name) || !filepath.IsLocal(name) || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("url %s names a file outside of the folder; %s", Quote(raw), remedy)
	}
	return name, nil
}
