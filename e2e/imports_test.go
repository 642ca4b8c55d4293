package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/packages"
)

const module = "github.com/ententehq/entente/"

// mayImport lists, for each room, the rooms that it may import. A room is a folder; it includes the folders below it
// that have no entry of their own. An entry of a list includes all folders below it. Every room may import the ones in
// everywhere.
var mayImport = map[string][]string{
	"api":                       {},
	"internal/apierror":         {},
	"internal/clocktest":        {},
	"internal/damagetest":       {},
	"internal/devbuild":         {},
	"internal/dnsname":          {},
	"internal/egress":           {},
	"internal/egress/proxytest": {},
	"internal/enumname":         {},
	"internal/etag":             {"internal/apierror"},
	"internal/logthrottle":      {},
	"internal/origin":           {},
	"internal/protocomments":    {},
	"internal/release":          {},
	"internal/sealed":           {},
	"internal/secretdir":        {},
	"internal/shorttest":        {},
	"internal/span":             {},
	"internal/token":            {},
	"internal/xdsupdate":        {},

	"bundle":                     {"bundle/internal"},
	"bundle/internal/bundletest": {"bundle"},
	"bundle/statement":           {"bundle"},
	"bundle/svid":                {"bundle"},
	"bundle/endpoint":            {"bundle"},
	"bundle/webcert":             {"bundle"},
	"bundle/publish":             {"bundle"},

	"raftstore/internal":             {"raftstore/snapshot"},
	"raftstore/snapshot":             {"raftstore/internal/row"},
	"raftstore/repeat":               {"raftstore"},
	"raftstore/feed":                 {"raftstore"},
	"raftstore/membership/memberid":  {},
	"raftstore/membership/memory":    {},
	"raftstore/membership/directory": {"raftstore", "raftstore/membership/memberid"},
	"raftstore/membership/join": {
		"raftstore", "raftstore/membership/directory", "raftstore/membership/memberid",
	},
	"raftstore/membership":    {"raftstore"},
	"raftstore/raftstoretest": {"raftstore"},
	"raftstore":               {"raftstore/internal", "raftstore/snapshot"},
	"raftstore_test":          {"raftstore"},

	"trust":                 {"bundle", "raftstore", "trust/standing"},
	"trust/bundleapi":       {"bundle", "raftstore", "trust"},
	"trust/standing":        {},
	"trust/publisher":       {"bundle", "raftstore", "trust"},
	"access/audit":          {},
	"access/audit/auditapi": {"access/audit"},
	"access/admission":      {},
	"access/grant":          {"bundle", "raftstore"},
	"access":                {"bundle", "raftstore", "access/admission", "access/audit", "access/grant"},

	"authority/plan":     {},
	"authority/keys":     {},
	"authority/svid":     {"access", "authority/keys"},
	"authority/upstream": {"bundle/svid", "authority/keys", "authority/svid"},
	"authority/table":    {"raftstore", "authority/plan", "authority/svid"},
	"authority/internal": {"bundle", "raftstore", "access", "authority/plan", "authority/table"},
	"authority/publish": {
		"trust", "bundle", "raftstore", "access", "authority/internal", "authority/keys", "authority/plan",
		"authority/svid",
		"authority/table",
	},
	"authority/anchor": {
		"raftstore", "access", "authority/internal", "authority/keys", "authority/plan", "authority/publish",
		"authority/svid", "authority/table", "authority/upstream",
	},
	"authority/issue": {
		"trust", "bundle", "raftstore", "access", "authority/internal", "authority/keys", "authority/plan",
		"authority/svid",
		"authority/table", "authority/upstream",
	},
	"authority/domain": {
		"bundle", "raftstore", "access", "authority/internal", "authority/keys", "authority/plan", "authority/publish",
		"authority/table",
	},
	"authority": {"trust", "bundle", "raftstore", "access", "authority"},

	"federation/federationtest": {"trust", "bundle", "raftstore", "access"},
	"federation/relationship":   {"trust", "bundle", "raftstore", "access", "federation/federationtest"},
	"federation/mirror":         {"bundle", "raftstore", "federation/relationship", "federation/federationtest"},
	"federation/observation":    {"raftstore", "federation/relationship"},
	"federation/intake": {
		"trust", "bundle", "raftstore", "access", "federation/relationship", "federation/federationtest",
	},
	"federation/peer/session": {"bundle", "raftstore", "federation/relationship", "federation/federationtest"},
	"federation/peer": {
		"trust", "bundle", "raftstore", "access", "federation/mirror", "federation/peer/session",
		"federation/relationship",
		"federation/federationtest",
	},
	"federation/fetch": {
		"trust", "bundle", "raftstore", "federation/intake", "federation/mirror", "federation/observation",
		"federation/relationship", "federation/federationtest",
	},
	"federation/receiver": {
		"bundle", "raftstore", "federation/intake", "federation/mirror", "federation/observation", "federation/peer",
		"federation/relationship",
	},
	"federation/hub": {
		"trust", "bundle", "raftstore", "access", "federation/fetch", "federation/intake", "federation/mirror",
		"federation/observation", "federation/peer", "federation/relationship", "federation/federationtest",
	},
	"federation/invitation": {
		"trust", "bundle", "raftstore", "access", "federation/intake", "federation/mirror", "federation/relationship",
		"federation/federationtest",
	},
	"federation": {"trust", "bundle", "raftstore", "access", "federation"},

	"routing/plan":        {"trust/standing"},
	"routing/routingtest": {"raftstore", "access"},
	"routing/registry":    {"trust", "bundle", "raftstore", "access", "routing/plan", "routing/routingtest"},
	"routing/exchange": {
		"trust", "bundle", "raftstore", "access", "routing/plan", "routing/registry", "routing/routingtest",
	},
	"routing/xds":      {"trust", "raftstore", "access", "routing/plan"},
	"routing/xds_test": {"trust", "raftstore", "access", "routing"},
	"routing":          {"trust", "raftstore", "access", "routing"},

	"registration/agenttoken": {},
	"registration/possession": {},
	"registration/nodeattest": {"registration/entry", "registration/possession"},
	"registration/entry":      {"bundle"},
	"registration":            {"bundle", "raftstore", "access", "registration"},
	"registration_test":       {"raftstore", "access", "authority/svid", "registration"},

	"vaultca/vault":     {},
	"vaultca/vaulttest": {},
	"vaultca/transit":   {"authority/keys", "vaultca/vault", "vaultca/vaulttest"},
	"vaultca": {
		"bundle/svid", "authority/keys", "authority/plan", "authority/svid", "authority/upstream", "vaultca",
	},

	"node/port": {"raftstore", "access", "bundle"},
	"node/config": {
		"bundle", "access/grant", "authority/issue", "authority/plan", "authority/upstream", "registration/entry",
		"registration/nodeattest", "routing/exchange", "routing/registry/preserve", "vaultca", "node/backup",
	},
	"node/acmeorders": {"bundle/webcert", "raftstore"},
	"node/preflight": {
		"authority/keys", "bundle/webcert", "raftstore/membership/join", "node/config", "federation/relationship",
	},
	"node/debug":        {},
	"node/lifecycle":    {},
	"node/operations":   {},
	"node/backup":       {"raftstore"},
	"node/process":      {},
	"node/supervisor":   {},
	"node/tracing":      {},
	"node/xdsbootstrap": {"bundle", "routing/xds"},
	"node/inspect": {
		"access/audit", "bundle", "federation/relationship", "raftstore/snapshot", "vaultca", "node/config",
	},
	"node/nodetest": {"node"},
	"node": {
		"trust", "bundle", "raftstore", "access", "authority", "federation", "registration", "routing", "vaultca",
		"node",
	},

	"client":        {"bundle"},
	"client_test":   {"client", "node/nodetest"},
	"examples":      {"client"},
	"examples_test": {"client", "node/nodetest"},
	"agent":         {"bundle", "client", "registration/agenttoken", "registration/possession"},
	"agent_test": {
		"agent", "client", "node/nodetest", "node/config", "registration/nodeattest",
	},
	"cmd/entente/demo":               {"client"},
	"cmd/entente/sync":               {"bundle", "client", "cmd/entente/cli"},
	"cmd/entente":                    {"agent", "client", "node", "cmd/entente/demo", "cmd/entente/sync"},
	"kubernetes/api":                 {},
	"kubernetes/kubetest":            {},
	"kubernetes/publish":             {"bundle", "client", "kubernetes/api"},
	"kubernetes":                     {"client", "kubernetes"},
	"kubernetes_test":                {"bundle", "client", "kubernetes", "node/nodetest"},
	"cmd/entente-kubernetes":         {"bundle", "client", "kubernetes"},
	"terraform":                      {"bundle", "client", "internal/release", "registration/entry", "routing/plan"},
	"terraform/acceptance":           {"client", "node/nodetest", "terraform"},
	"cmd/terraform-provider-entente": {"terraform"},
	"deploy":                         {"node/config", "agent"},
	"deploy/monitoring":              {},
	"deploy/monitoring/generate":     {"deploy/monitoring"},
	"e2e/chaos":                      {},
	"e2e": {
		"trust", "bundle", "raftstore", "access", "authority", "federation", "routing", "node", "vaultca", "client",
		"deploy/monitoring", "e2e/chaos",
	},
}

// everywhere lists the rooms that every room may import, those named test in tests only.
var everywhere = []string{
	"api",
	"internal/apierror",
	"internal/clocktest",
	"internal/damagetest",
	"internal/devbuild",
	"internal/dnsname",
	"internal/egress",
	"internal/enumname",
	"internal/etag",
	"internal/logthrottle",
	"internal/origin",
	"internal/sealed",
	"internal/secretdir",
	"internal/shorttest",
	"internal/span",
	"internal/token",
	"internal/xdsupdate",
}

// roomOfPackage returns the room of a package. Tests outside of a package are in a room of their own if mayImport has
// one.
func roomOfPackage(path string) string {
	if rel := strings.TrimPrefix(path, module); mayImport[rel] != nil {
		return rel
	}
	return roomOf(strings.TrimSuffix(path, "_test"))
}

// roomOf returns the longest room that has an import path, or "" for a package of another module.
func roomOf(path string) string {
	rel, ok := strings.CutPrefix(path, module)
	if !ok {
		return ""
	}
	best := ""
	for room := range mayImport {
		if within(rel, room) && len(room) > len(best) {
			best = room
		}
	}
	return best
}

// within reports whether a folder is another one, or below it.
func within(folder, other string) bool {
	return folder == other || strings.HasPrefix(folder, other+"/")
}

// permitted reports whether a package of one room may import a package.
func permitted(from, path string) bool {
	rel, ok := strings.CutPrefix(path, module)
	if !ok || roomOf(path) == from {
		return true
	}
	return slices.ContainsFunc(append(slices.Clone(mayImport[from]), everywhere...), func(room string) bool {
		return within(rel, room)
	})
}

// TestImportsPointDownwards holds each import to mayImport.
func TestImportsPointDownwards(t *testing.T) {
	loaded, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedImports, Dir: "..", Tests: true,
	}, "./...")
	require.NoError(t, err)
	require.Greater(t, len(loaded), 10, "the module's packages were not found")
	for _, pkg := range loaded {
		if strings.HasSuffix(pkg.PkgPath, ".test") {
			continue // the program that go test makes of a package and its tests
		}
		from := roomOfPackage(pkg.PkgPath)
		require.NotEmpty(t, from, "%s is in no room: add it to mayImport and to docs/ARCHITECTURE.md", pkg.PkgPath)
		for path := range pkg.Imports {
			assert.True(t, permitted(from, path), "%s imports %s, which %s may not import", pkg.PkgPath, path, from)
		}
	}
}
