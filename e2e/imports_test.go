package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/packages"
)

const module = "github.com/ententehq/entente/"

// mayImport lists, for each room, the rooms that it knows. A room is a folder with all below it; everybody knows api, internal/apierror,
// itself, and in tests internal/clocktest and internal/shorttest.
var mayImport = map[string][]string{
	"api":                {},
	"internal/apierror":  {},
	"internal/clocktest": {},
	"internal/shorttest": {},
	"bundle":             {},
	"raftstore":          {},
	"trust":              {"bundle", "raftstore"},
	"access":             {"bundle", "raftstore", "access/audit"},
	"authority/plan":     {},
	"authority/keys":     {},
	"authority/svid":     {"access", "access/audit", "authority/keys"},
	"authority/upstream": {"authority/keys", "authority/svid"},
	"authority/table":    {"raftstore", "authority/plan", "authority/svid"},
	"authority/internal": {"bundle", "raftstore", "access", "access/audit", "authority/plan", "authority/table"},
	"authority/publish": {"trust", "bundle", "raftstore", "access", "access/audit", "authority/internal",
		"authority/keys", "authority/plan",
		"authority/svid", "authority/table"},
	"authority/anchor": {"raftstore", "authority/internal", "authority/plan", "authority/publish", "authority/svid",
		"authority/table", "authority/upstream"},
	"authority/issue": {"trust", "bundle", "raftstore", "access", "access/audit", "authority/internal",
		"authority/keys", "authority/plan",
		"authority/svid", "authority/table", "authority/upstream"},
	"authority/domain": {"bundle", "raftstore", "access", "access/audit", "authority/internal", "authority/plan",
		"authority/publish",
		"authority/table"},
	"authority": {"trust", "bundle", "raftstore", "access", "access/audit", "authority/anchor", "authority/domain",
		"authority/internal",
		"authority/issue", "authority/keys", "authority/plan", "authority/publish", "authority/svid", "authority/table",
		"authority/upstream"},
	"federation/federationtest": {"trust", "bundle", "raftstore", "access", "access/audit"},
	"federation/relationship": {"trust", "bundle", "raftstore", "access", "access/audit",
		"federation/federationtest"},
	"federation/mirror":      {"trust", "bundle", "raftstore", "federation/relationship"},
	"federation/observation": {"raftstore", "federation/relationship"},
	"federation/intake":      {"trust", "bundle", "raftstore", "access", "access/audit", "federation/relationship"},
	"federation/fetch": {"trust", "bundle", "raftstore", "access", "access/audit", "federation/relationship",
		"federation/mirror",
		"federation/observation", "federation/intake", "federation/federationtest"},
	"federation/invitation": {"trust", "bundle", "raftstore", "access", "access/audit", "federation/relationship",
		"federation/mirror",
		"federation/intake", "federation/federationtest"},
	"federation/peer": {"trust", "bundle", "raftstore", "access", "access/audit", "federation/relationship",
		"federation/mirror",
		"federation/observation", "federation/intake", "federation/federationtest"},
	"federation/hub": {"trust", "bundle", "raftstore", "access", "access/audit", "federation/relationship",
		"federation/mirror",
		"federation/observation", "federation/intake", "federation/fetch", "federation/peer", "federation/federationtest"},
	"federation": {"trust", "bundle", "raftstore", "access", "access/audit", "federation/relationship",
		"federation/mirror", "federation/observation",
		"federation/intake", "federation/fetch", "federation/invitation", "federation/peer", "federation/hub",
		"federation/federationtest"},
	"routing/plan": {"trust"},
	"routing/registry": {"trust", "bundle", "raftstore", "access", "access/audit", "routing/plan",
		"routing/routingtest"},
	"routing/exchange": {"trust", "bundle", "raftstore", "access", "access/audit", "routing/plan",
		"routing/registry", "routing/routingtest"},
	"routing/xds": {"trust", "raftstore", "access", "access/audit", "routing/plan"},
	"routing/xds_test": {"trust", "raftstore", "access", "access/audit", "routing", "routing/plan",
		"routing/registry", "routing/xds"},
	"routing/routingtest": {"access", "access/audit"},
	"routing": {"trust", "raftstore", "access", "access/audit", "routing/exchange", "routing/plan", "routing/registry",
		"routing/routingtest"},
	"vaultca":           {"authority/keys", "authority/plan", "authority/svid", "authority/upstream"},
	"access/audit":      {},
	"node/lifecycle":    {},
	"node/operations":   {},
	"node/xdsbootstrap": {"bundle", "routing/xds"},
	"node/acmeorders":   {"bundle", "raftstore"},
	"node/config": {"bundle", "authority", "authority/issue", "authority/plan", "routing", "routing/exchange",
		"vaultca"},
	"node/inspect": {"bundle", "raftstore", "node/config", "vaultca"},
	"node/port":    {"bundle", "raftstore", "access", "access/audit"},
	"node": {"trust", "bundle", "raftstore", "access", "access/audit", "authority", "authority/issue",
		"authority/keys", "authority/plan", "authority/publish", "authority/svid", "authority/table",
		"authority/upstream", "federation", "federation/hub", "federation/invitation",
		"federation/observation", "federation/peer", "federation/relationship", "routing", "routing/exchange", "routing/plan", "routing/registry",
		"routing/xds", "vaultca", "node/lifecycle", "node/operations", "node/acmeorders", "node/config", "node/port"},
	"client":           {"bundle"},
	"client_test":      {"client", "node"},
	"examples":         {"client"},
	"examples_test":    {"client", "node"},
	"cmd/entente/demo": {"client"},
	"cmd/entente":      {"client", "node", "node/config", "node/inspect", "node/xdsbootstrap", "cmd/entente/demo"},
	"terraform":        {},
	"e2e": {"trust", "bundle", "raftstore", "access", "access/audit", "authority", "authority/issue",
		"authority/keys", "authority/plan", "authority/publish", "authority/svid", "authority/table", "authority/upstream", "federation", "federation/hub", "federation/invitation",
		"federation/observation", "federation/peer", "federation/relationship", "routing", "node", "vaultca", "client"},
}

// roomOfPackage returns the room of a package. Tests outside of a package are in a room of their own if mayImport has one.
func roomOfPackage(path string) string {
	if rel := strings.TrimPrefix(path, module); mayImport[rel] != nil {
		return rel
	}
	return roomOf(strings.TrimSuffix(path, "_test"))
}

// roomOf returns the longest room that holds an import path, or "" for a package of another module.
func roomOf(path string) string {
	rel, ok := strings.CutPrefix(path, module)
	if !ok {
		return ""
	}
	best := ""
	for room := range mayImport {
		if (rel == room || strings.HasPrefix(rel, room+"/")) && len(room) > len(best) {
			best = room
		}
	}
	return best
}

func TestRoomsImportOneWay(t *testing.T) {
	loaded, err := packages.Load(&packages.Config{Mode: packages.NeedName | packages.NeedImports, Dir: "..",
		Tests: true}, "./...")
	require.NoError(t, err)
	require.Greater(t, len(loaded), 10, "the module's packages were not found")
	for _, pkg := range loaded {
		if strings.HasSuffix(pkg.PkgPath, ".test") {
			continue // the program that go test makes of a package and its tests
		}
		from := roomOfPackage(pkg.PkgPath)
		require.NotEmpty(t, from, "package %s is in no known room: add it to mayImport, and to docs/ARCHITECTURE.md",
			pkg.PkgPath)
		known := map[string]bool{
			"": true, "api": true, "internal/apierror": true, "internal/clocktest": true,
			"internal/shorttest": true, from: true,
		}
		for _, room := range mayImport[from] {
			known[room] = true
		}
		for path := range pkg.Imports {
			to := roomOf(path)
			assert.True(t, known[to], "%s imports %s, but %s must not know %s", pkg.PkgPath, path, from, to)
		}
	}
}
