package registry

import (
	"strings"

	"github.com/ententehq/entente/access/grant"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

var (
	// Instances holds all instances, by "<service>/<lease, or ->/<generation>/<IP:port>". Imported instances have
	// "@<trust domain>" in place of the lease.
	Instances = raftstore.NewTable[*statev1.Instance]("instances")
	// Sets holds the generation of a set that counts, by "<service>/<lease, or ->". A set without a row is in its first
	// generation.
	Sets = raftstore.NewTable[*statev1.InstanceSet]("instance_sets")
	// Leases holds all leases, by ID.
	Leases = raftstore.NewTable[*statev1.Lease]("leases")
	// leaseServices has a row for each service in which a lease has instances, by "<lease>/<service>".
	leaseServices = raftstore.NewTable[*statev1.LeaseService]("lease_services")

	// Imports holds the services that are imported from other clusters, by "<service here>/<trust domain>".
	Imports = raftstore.NewTable[*statev1.ServiceImport]("service_imports")
	// ImportedSets holds what was received for each import, by the same keys. Its rows are written in the transaction
	// that stores the instances, which are in Instances.
	ImportedSets = raftstore.NewTable[*statev1.ImportedSet]("imported_sets")
	// ImportSources has a row for each trust domain whose imports have expired.
	ImportSources = raftstore.NewTable[*statev1.ImportSource]("import_sources")
)

// Prefixes lists what decides which instances count, of all services.
func Prefixes() []raftstore.Prefix { return append(prefixes(""), grant.OwnersPrefix("")) }

// PrefixesOf lists what decides which instances of one service count.
func PrefixesOf(service string) []raftstore.Prefix {
	return append(prefixes(servicePrefix(service)), grant.OwnersPrefix(service))
}

func prefixes(service string) []raftstore.Prefix {
	return []raftstore.Prefix{
		Instances.Prefix(service), Sets.Prefix(service), Leases.Prefix(""),
		Imports.Prefix(service), ImportedSets.Prefix(service), ImportSources.Prefix(""),
	}
}

// serviceRevision returns the revision of the last change to the instances of a service, or to what decides whether
// they count.
func serviceRevision(r raftstore.Reader, service string) raftstore.Revision {
	prefix := servicePrefix(service)
	return max(
		Instances.PrefixRevision(r, prefix), Sets.PrefixRevision(r, prefix), importsRevision(r, prefix),
		grant.OwnersRevision(r, service),
	)
}

// importsRevision returns the revision of the last change to what decides whether the imported instances of a service
// count.
func importsRevision(r raftstore.Reader, prefix string) raftstore.Revision {
	return max(
		Imports.PrefixRevision(r, prefix), ImportedSets.PrefixRevision(r, prefix), ImportSources.PrefixRevision(r, ""),
	)
}

// Affected returns the services that a changed row of [Prefixes] affects. The reader is at least as new as the change.
// If known is false, any service may be affected. The cost depends on the number of affected services, not on the
// number of services.
func Affected(r raftstore.Reader, change raftstore.Change) (services []string, known bool) {
	switch change.Table {
	case Instances.Name(), Sets.Name(), Imports.Name(), ImportedSets.Name(), grant.OwnersPrefix("").Table:
		service, _, ok := strings.Cut(change.Key, "/")
		return []string{service}, ok
	case Leases.Name():
		// If the index of a lease is deleted already, so are its instances, which are changes of their own.
		services, err := servicesOf(r, change.Key)
		return services, err == nil
	case ImportSources.Name():
		services, err := importedFrom(r, change.Key)
		return services, err == nil
	}
	return nil, false
}

// importedFrom lists the services that have instances from a trust domain. It reads all imports, which is acceptable
// because it is needed only when the imports from a domain expire or recover.
func importedFrom(r raftstore.Reader, domain string) ([]string, error) {
	var services []string
	for row, err := range ImportedSets.All(r, "") {
		if err != nil {
			return nil, err
		}
		if service, from, _ := strings.Cut(row.Key, "/"); from == domain {
			services = append(services, service)
		}
	}
	return services, nil
}
