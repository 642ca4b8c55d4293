package exchange

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access/grant"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
)

// exportTable holds the services that are exported to other clusters, by "<trust domain>/<name there>".
var exportTable = parsedTable[*statev1.ServiceExport, serviceExport]{
	raftstore.NewTable[*statev1.ServiceExport]("service_exports"), exportFromRow,
}

const (
	// maxExports bounds the exports of the cluster, maxExportLocalities the localities of one.
	maxExports          = 10000
	maxExportLocalities = 32
	maxPathPrefix       = 512
)

// errExport is returned for what does not describe an export or an import.
var errExport = errors.New("cannot be shared")

// serviceExport offers a service to the cluster of a foreign trust domain.
type serviceExport struct {
	// Service is its name here, Name its name there.
	Service, Name string
	To            string
	// Localities restrict the exported instances to these localities. If empty, instances of all localities are
	// exported.
	Localities []plan.Locality
	// TrustDomain and PathPrefix restrict them by their SPIFFE IDs, unless empty.
	TrustDomain, PathPrefix string

	created time.Time
	// relationshipCreated is the Since of the agreement that the export was created under.
	relationshipCreated time.Time
	revision            raftstore.Revision
	// generation is the number in the etag.
	generation uint64
}

func exportKey(to, name string) string { return to + "/" + name }

// parseExport parses and checks an export. Fields that the server sets are ignored.
func parseExport(m *ententev1.ServiceExport) (serviceExport, error) {
	var e serviceExport
	if m == nil {
		return e, apierror.InField("export", fmt.Errorf("%w: the export is missing", errExport))
	}
	e = serviceExport{Service: m.GetService(), Name: m.GetName(), PathPrefix: m.GetPathPrefix()}
	if e.Name == "" {
		e.Name = e.Service
	}
	if err := plan.CheckServiceName(e.Service); err != nil {
		return e, apierror.InField("service", err)
	}
	if err := plan.CheckServiceName(e.Name); err != nil {
		return e, apierror.InField("name", err)
	}
	var err error
	if e.To, err = foreignDomain(m.GetTo()); err != nil {
		return e, apierror.InField("to", err)
	}
	if n := len(m.GetLocalities()); n > maxExportLocalities {
		return e, apierror.InField("localities",
			fmt.Errorf("%w: the export names %d places; %d are allowed", errExport, n, maxExportLocalities))
	}
	for i, text := range m.GetLocalities() {
		locality, err := plan.ParseLocality(text)
		if err != nil {
			return e, apierror.InField(fmt.Sprintf("localities[%d]", i), err)
		}
		if !slices.Contains(e.Localities, locality) {
			e.Localities = append(e.Localities, locality)
		}
	}
	slices.SortFunc(e.Localities, plan.Locality.Compare)
	if m.GetTrustDomain() != "" {
		td, err := bundle.ParseTrustDomain(m.GetTrustDomain())
		if err != nil {
			return e, apierror.InField("trust_domain", err)
		}
		e.TrustDomain = td.Name()
	}
	if p := e.PathPrefix; p != "" {
		if len(p) > maxPathPrefix || !strings.HasPrefix(p, "/") || p == "/" || strings.HasSuffix(p, "/") {
			return e, apierror.InField("path_prefix", fmt.Errorf(
				"%w: the path %q does not consist of whole segments, such as /shop; leave it out for all paths",
				errExport, plan.Clip(p),
			))
		}
	}
	return e, nil
}

// foreignDomain parses the trust domain to export to, or to import from.
func foreignDomain(text string) (string, error) {
	if text == "" {
		return "", fmt.Errorf("%w: the trust domain of the other cluster is missing", errExport)
	}
	td, err := bundle.ParseTrustDomain(text)
	if err != nil {
		return "", fmt.Errorf("%w: %q is no trust domain: %w", errExport, plan.Clip(text), err)
	}
	return td.Name(), nil
}

// covers reports whether an instance is exported. Imported instances never are, because services are shared over one
// hop only, and neither are instances that yield to another registration at their address.
func (e serviceExport) covers(i registry.Instance) bool {
	td := i.ID.TrustDomain().Name()
	return i.Origin == "" && !i.Outranked && i.Service == e.Service &&
		(e.TrustDomain == "" || td == e.TrustDomain) &&
		(e.PathPrefix == "" || grant.HasPathPrefix(i.ID.Path(), e.PathPrefix)) &&
		(len(e.Localities) == 0 || slices.ContainsFunc(e.Localities, i.Locality.Within))
}

// terms returns a text that is equal for exports of the same instances.
func (e serviceExport) terms() string {
	return fmt.Sprintf("%s %v %s %s", e.Service, e.Localities, e.TrustDomain, e.PathPrefix)
}

func (e serviceExport) row() *statev1.ServiceExport {
	row := &statev1.ServiceExport{
		Service: e.Service, TrustDomain: e.TrustDomain, PathPrefix: e.PathPrefix,
		CreateTime: timestamppb.New(e.created), RelationshipCreateTime: timestamppb.New(e.relationshipCreated),
		Generation: e.generation,
	}
	for _, locality := range e.Localities {
		row.Localities = append(row.Localities, locality.String())
	}
	return row
}

func exportFromRow(row raftstore.Row[*statev1.ServiceExport]) (serviceExport, error) {
	to, name, _ := strings.Cut(row.Key, "/")
	v := row.Value
	e, err := parseExport(&ententev1.ServiceExport{
		Service: v.GetService(), Name: name, To: to, Localities: v.GetLocalities(),
		TrustDomain: v.GetTrustDomain(), PathPrefix: v.GetPathPrefix(),
	})
	if err != nil {
		return e, fmt.Errorf("export %q: %w", row.Key, err)
	}
	e.created, e.relationshipCreated = v.GetCreateTime().AsTime(), v.GetRelationshipCreateTime().AsTime()
	e.revision, e.generation = row.Revision, v.GetGeneration()
	return e, nil
}

// counts reports whether an export was created under the present agreement.
func (e serviceExport) counts(a Agreement) bool { return e.relationshipCreated.Equal(a.Since) }

// invalid returns the status for a request that does not parse.
func invalid(err error) error { return apierror.Invalid(err) }
