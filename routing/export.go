package routing

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// Exports is the table of services that are offered to other clusters, by "<trust domain>/<name there>".
var Exports = raftstore.NewTable[*statev1.ServiceExport]("service_exports")

const (
	// maxExports bounds the exports of the cluster, maxExportPlaces the places that one names.
	maxExports      = 10000
	maxExportPlaces = 32
	maxPathPrefix   = 512
)

// ErrExport is returned for what cannot be an export, or an import.
var ErrExport = errors.New("cannot be shared")

// Export offers a service to the cluster of a foreign trust domain.
type Export struct {
	// Service is its name here, Name the one there.
	Service, Name string
	To            string
	// Localities are the places of the instances that are offered; none: everywhere.
	Localities []plan.Locality
	// TrustDomain and PathPrefix narrow them down by their SPIFFE IDs; empty: they do not.
	TrustDomain, PathPrefix string

	created time.Time
	// agreed is the Since of the agreement that it was made under.
	agreed   time.Time
	revision raftstore.Revision
}

func exportKey(to, name string) string { return to + "/" + name }

// ParseExport checks what an operator asks for. What the server sets is ignored.
func ParseExport(m *ententev1.ServiceExport) (Export, error) {
	var e Export
	if m == nil {
		return e, fmt.Errorf("%w: the export is missing", ErrExport)
	}
	e = Export{Service: m.GetService(), Name: m.GetName(), PathPrefix: m.GetPathPrefix()}
	if e.Name == "" {
		e.Name = e.Service
	}
	for _, name := range []string{e.Service, e.Name} {
		if err := plan.CheckServiceName(name); err != nil {
			return e, err
		}
	}
	var err error
	if e.To, err = foreignDomain(m.GetTo()); err != nil {
		return e, err
	}
	if n := len(m.GetLocalities()); n > maxExportPlaces {
		return e, fmt.Errorf("%w: the export names %d places; %d are allowed", ErrExport, n, maxExportPlaces)
	}
	for _, text := range m.GetLocalities() {
		place, err := plan.ParseLocality(text)
		if err != nil {
			return e, err
		}
		if !slices.Contains(e.Localities, place) {
			e.Localities = append(e.Localities, place)
		}
	}
	slices.SortFunc(e.Localities, plan.Locality.Compare)
	if m.GetTrustDomain() != "" {
		td, err := bundle.ParseTrustDomain(m.GetTrustDomain())
		if err != nil {
			return e, err
		}
		e.TrustDomain = td.Name()
	}
	if p := e.PathPrefix; p != "" {
		if len(p) > maxPathPrefix || !strings.HasPrefix(p, "/") || p == "/" || strings.HasSuffix(p, "/") {
			return e, fmt.Errorf("%w: the path %q is not one of whole segments, such as /shop; leave it out for all", ErrExport, plan.Clip(p))
		}
	}
	return e, nil
}

// foreignDomain reads the domain to export to, or to import from.
func foreignDomain(text string) (string, error) {
	if text == "" {
		return "", fmt.Errorf("%w: the trust domain of the other cluster is missing", ErrExport)
	}
	td, err := bundle.ParseTrustDomain(text)
	if err != nil {
		return "", fmt.Errorf("%w: %q is no trust domain: %w", ErrExport, plan.Clip(text), err)
	}
	return td.Name(), nil
}

// covers says whether an instance is among those that are offered. What was imported never is: services travel one hop; nor what
// does not count here, for another that is registered at its address.
func (e Export) covers(i Instance) bool {
	td := i.ID.TrustDomain().Name()
	return i.Origin == "" && !i.Outranked && i.Service == e.Service &&
		(e.TrustDomain == "" || td == e.TrustDomain) &&
		(e.PathPrefix == "" || access.HasPathPrefix(i.ID.Path(), e.PathPrefix)) &&
		(len(e.Localities) == 0 || slices.ContainsFunc(e.Localities, i.Locality.Within))
}

// terms are what of a service is exported.
func (e Export) terms() string {
	return fmt.Sprintf("%s %v %s %s", e.Service, e.Localities, e.TrustDomain, e.PathPrefix)
}

func (e Export) row() *statev1.ServiceExport {
	row := &statev1.ServiceExport{
		Service: e.Service, TrustDomain: e.TrustDomain, PathPrefix: e.PathPrefix,
		CreateTime: timestamppb.New(e.created), Agreed: timestamppb.New(e.agreed),
	}
	for _, place := range e.Localities {
		row.Localities = append(row.Localities, place.String())
	}
	return row
}

func exportFromRow(row raftstore.Row[*statev1.ServiceExport]) (Export, error) {
	to, name, _ := strings.Cut(row.Key, "/")
	v := row.Value
	e, err := ParseExport(&ententev1.ServiceExport{
		Service: v.GetService(), Name: name, To: to, Localities: v.GetLocalities(), TrustDomain: v.GetTrustDomain(), PathPrefix: v.GetPathPrefix(),
	})
	if err != nil {
		return e, fmt.Errorf("export %q: %w", row.Key, err)
	}
	e.created, e.agreed, e.revision = v.GetCreateTime().AsTime(), v.GetAgreed().AsTime(), row.Revision
	return e, nil
}

// exports lists the exports below a prefix of the table.
func exports(r raftstore.Reader, prefix string) ([]Export, error) {
	var out []Export
	for row, err := range Exports.All(r, prefix) {
		if err != nil {
			return nil, err
		}
		e, err := exportFromRow(row)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// counts says whether an export stands under the agreement that there is now.
func (e Export) counts(a Agreement) bool { return e.agreed.Equal(a.Since) }
