package routing

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

var (
	// Imports is the table of services that are taken from other clusters, by "<service here>/<trust domain>".
	Imports = raftstore.NewTable[*statev1.ServiceImport]("service_imports")
	// ImportedSets says what came for each import, by the same keys. It is written in the transaction that stores the instances,
	// which are in Instances.
	ImportedSets = raftstore.NewTable[*statev1.ImportedSet]("imported_sets")
	// ImportSources has a row for each trust domain whose imports are too old to be offered.
	ImportSources = raftstore.NewTable[*statev1.ImportSource]("import_sources")
)

// How long imports outlive the stream that brought them: by default a rolling restart of the other cluster, and an outage on
// the way, are over by then.
const (
	DefaultImportTTL = 10 * time.Minute
	MinImportTTL     = 10 * time.Second
	MaxImportTTL     = 7 * 24 * time.Hour
)

const (
	// maxImports bounds the imports of the cluster, which is what one stream can ask for.
	maxImports = 1000
	// maxImportedSet bounds the instances of one import, so that half of what a service can have is left for its own.
	maxImportedSet = 2000
	// maxImportedFrom and maxImported bound what is imported from one domain, and in all.
	maxImportedFrom = 20000
	maxImported     = 50000
)

// originMark begins what stands for the lease in the key of an imported instance. IDs of leases are hexadecimal.
const originMark = "@"

// Import takes the instances of a service from the cluster of a foreign trust domain.
type Import struct {
	// Service is its name here, Name the one there.
	Service, Name string
	From          string

	id       string
	created  time.Time
	agreed   time.Time
	revision raftstore.Revision
}

func importKey(service, from string) string { return service + "/" + from }

func (i Import) key() string { return importKey(i.Service, i.From) }

// origin is the trust domain from which the instances of a set were imported; empty: they were not.
func (s set) origin() string {
	from, imported := strings.CutPrefix(s.lease, originMark)
	if !imported {
		return ""
	}
	return from
}

// ParseImport checks what an operator asks for. What the server sets is ignored.
func ParseImport(m *ententev1.ServiceImport) (Import, error) {
	var i Import
	if m == nil {
		return i, fmt.Errorf("%w: the import is missing", ErrExport)
	}
	i = Import{Service: m.GetService(), Name: m.GetName()}
	if i.Service == "" {
		i.Service = i.Name
	}
	for _, name := range []string{i.Name, i.Service} {
		if err := plan.CheckServiceName(name); err != nil {
			return i, err
		}
	}
	var err error
	i.From, err = foreignDomain(m.GetFrom())
	return i, err
}

func (i Import) row() *statev1.ServiceImport {
	return &statev1.ServiceImport{Name: i.Name, CreateTime: timestamppb.New(i.created), Agreed: timestamppb.New(i.agreed), Id: i.id}
}

func importFromRow(row raftstore.Row[*statev1.ServiceImport]) (Import, error) {
	service, from, _ := strings.Cut(row.Key, "/")
	i, err := ParseImport(&ententev1.ServiceImport{Name: row.Value.GetName(), From: from, Service: service})
	if err != nil {
		return i, fmt.Errorf("import %q: %w", row.Key, err)
	}
	i.id, i.created, i.agreed, i.revision = row.Value.GetId(), row.Value.GetCreateTime().AsTime(), row.Value.GetAgreed().AsTime(), row.Revision
	return i, nil
}

// imports lists all imports.
func imports(r raftstore.Reader) ([]Import, error) {
	var out []Import
	for row, err := range Imports.All(r, "") {
		if err != nil {
			return nil, err
		}
		i, err := importFromRow(row)
		if err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, nil
}

// counts says whether an import stands under the agreement that there is now.
func (i Import) counts(a Agreement) bool { return i.agreed.Equal(a.Since) }

// importState says what the instances count for that are stored of an import. Without the import they are gone at once, and
// cleared away later; what came under an import of the same names that was since ended is none of its.
func importState(r raftstore.Reader, of set) (leaseState, error) {
	key := importKey(of.service, of.origin())
	wanted, found, err := Imports.Get(r, key)
	if err != nil || !found {
		return leaseGone, err
	}
	came, found, err := ImportedSets.Get(r, key)
	if err != nil || !found || came.Value.GetImport() != wanted.Value.GetId() || len(came.Value.GetDigest()) == 0 {
		return leaseGone, err // nothing has come for it that was taken
	}
	if _, expired, err := ImportSources.Get(r, of.origin()); err != nil || expired {
		return importExpired, err
	}
	return leaseHeld, nil
}
