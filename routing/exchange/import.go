package exchange

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
)

const (
	// maxImports bounds the imports of the cluster, and so the subscriptions of one stream.
	maxImports = 1000
	// maxImportedSet bounds the instances of one import. Half of the instances of a service remain for its own.
	maxImportedSet = registry.MaxInstances / 2
	// maxImportedFrom and maxImported bound what is imported from one domain, and in total.
	maxImportedFrom = 20000
	maxImported     = 50000
)

// importTable holds the services that are imported from other clusters, by [registry.ImportKey].
var importTable = parsedTable[*statev1.ServiceImport, serviceImport]{registry.Imports, importFromRow}

// serviceImport requests the instances of a service from the cluster of a foreign trust domain.
type serviceImport struct {
	// Service is its name here, Name its name there.
	Service, Name string
	From          string

	// id is random. Instances that were received for another import of the same key do not count.
	id                  string
	created             time.Time
	relationshipCreated time.Time
	revision            raftstore.Revision
	// generation is the number in the etag.
	generation uint64
}

func (i serviceImport) key() string { return registry.ImportKey(i.Service, i.From) }

// parseImport parses and checks an import. Fields that the server sets are ignored.
func parseImport(m *ententev1.ServiceImport) (serviceImport, error) {
	var i serviceImport
	if m == nil {
		return i, apierror.InField("import", fmt.Errorf("%w: the import is missing", errExport))
	}
	i = serviceImport{Service: m.GetService(), Name: m.GetName()}
	if i.Service == "" {
		i.Service = i.Name
	}
	if err := plan.CheckServiceName(i.Name); err != nil {
		return i, apierror.InField("name", err)
	}
	if err := plan.CheckServiceName(i.Service); err != nil {
		return i, apierror.InField("service", err)
	}
	var err error
	i.From, err = foreignDomain(m.GetFrom())
	return i, apierror.InField("from", err)
}

func (i serviceImport) row() *statev1.ServiceImport {
	return &statev1.ServiceImport{
		Name: i.Name, Id: i.id, CreateTime: timestamppb.New(i.created),
		RelationshipCreateTime: timestamppb.New(i.relationshipCreated), Generation: i.generation,
	}
}

func importFromRow(row raftstore.Row[*statev1.ServiceImport]) (serviceImport, error) {
	service, from, _ := strings.Cut(row.Key, "/")
	i, err := parseImport(&ententev1.ServiceImport{Name: row.Value.GetName(), From: from, Service: service})
	if err != nil {
		return i, fmt.Errorf("import %q: %w", row.Key, err)
	}
	v := row.Value
	i.id, i.revision, i.generation = v.GetId(), row.Revision, v.GetGeneration()
	i.created, i.relationshipCreated = v.GetCreateTime().AsTime(), v.GetRelationshipCreateTime().AsTime()
	return i, nil
}

// counts reports whether an import was created under the present agreement.
func (i serviceImport) counts(a Agreement) bool { return i.relationshipCreated.Equal(a.Since) }

// stored returns the digest of the set that is stored for an import. It is zero if there is none, and after a refusal,
// so that the peer sends the set again.
func (i serviceImport) stored(r raftstore.Reader) (d digest, refused bool, err error) {
	row, found, err := registry.ImportedSets.Get(r, i.key())
	if err != nil || !found || row.Value.GetImport() != i.id {
		return d, false, err
	}
	if refused = row.Value.GetRefused() != ""; !refused {
		copy(d[:], row.Value.GetDigest())
	}
	return d, refused, nil
}
