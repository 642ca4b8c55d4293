package routing

import (
	"strings"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// Prefixes names all that plans depend on.
func (m *Manager) Prefixes() []raftstore.Prefix {
	return append([]raftstore.Prefix{
		Instances.Prefix(""), Sets.Prefix(""), Leases.Prefix(""), Rules.Prefix(""), Imports.Prefix(""), ImportedSets.Prefix(""), ImportSources.Prefix(""),
	}, m.trust.Prefixes()...)
}

// prefixesOf names all that the plans of one service depend on.
func (m *Manager) prefixesOf(service string) []raftstore.Prefix {
	own := servicePrefix(service)
	return append([]raftstore.Prefix{
		Instances.Prefix(own), Sets.Prefix(own), Leases.Prefix(""), Rules.Prefix(""), Imports.Prefix(own), ImportedSets.Prefix(own), ImportSources.Prefix(""),
	}, m.trust.Prefixes()...)
}

// Touched says which services a changed row of [Manager.Prefixes] is of, in a state that is as new as the change or newer;
// false: it may be any. What it costs depends on how many they are, and not on how many there are.
func (m *Manager) Touched(r raftstore.Reader, change raftstore.Change) (services []string, known bool) {
	switch change.Table {
	case Instances.Name(), Sets.Name(), Imports.Name(), ImportedSets.Name():
		service, _, ok := strings.Cut(change.Key, "/")
		return []string{service}, ok
	case Rules.Name():
		return []string{change.Key}, change.Key != plan.AllServices
	case Leases.Name():
		// Where the index is cleared already, so are the instances, which are changes of their own.
		services, err := servicesOf(r, change.Key)
		return services, err == nil
	case ImportSources.Name():
		services, err := importedFrom(r, change.Key)
		return services, err == nil
	}
	return nil, false
}

// importedFrom lists the services that have something from a trust domain. Imports are looked through for it, which is seldom:
// when all that came from the domain expires, and when it is back.
func importedFrom(r raftstore.Reader, domain string) ([]string, error) {
	var out []string
	for row, err := range ImportedSets.All(r, "") {
		if err != nil {
			return nil, err
		}
		if service, from, _ := strings.Cut(row.Key, "/"); from == domain {
			out = append(out, service)
		}
	}
	return out, nil
}
