package raftstore_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/packages"
)

// floors lists which other packages of this room each one imports, lowest first.
var floors = map[string][]string{
	"internal/row":                 {},
	"internal/applied":             {},
	"internal/logfile":             {},
	"internal/disk":                {"internal/applied", "internal/logfile"},
	"internal/quorum":              {},
	"internal/election":            {},
	"internal/transport":           {"internal/quorum"},
	"internal/history":             {"internal/row"},
	"snapshot":                     {"internal/row"},
	"internal/machine":             {"internal/row", "internal/history", "snapshot"},
	"internal/machine/machinetest": {},
	"internal/metrics":             {"internal/machine"},
	"internal/commit":              {"internal/row", "internal/machine"},
	"": {
		"internal/row", "internal/disk", "internal/transport", "internal/history", "snapshot", "internal/machine",
		"internal/metrics", "internal/commit", "internal/quorum", "internal/election", "internal/logfile",
	},
	"feed":                 {""},
	"raftstoretest":        {"", "internal/machine"},
	"repeat":               {""},
	"membership/memory":    {},
	"membership/memberid":  {},
	"membership/directory": {"", "membership/memberid"},
	"membership/join":      {"", "membership/memberid", "membership/directory"},
	"membership/recovery":  {"", "membership/memberid"},
	"membership/removal":   {"", "membership/memberid"},
	"membership/autopilot": {""},
	"membership/address": {
		"", "membership/memberid", "membership/directory", "membership/join", "membership/removal",
	},
	"membership": {
		"", "feed", "repeat", "snapshot", "membership/memberid", "membership/directory", "membership/join",
		"membership/memory",
		"membership/recovery", "membership/address", "membership/autopilot", "membership/removal",
	},
}

func TestFloorsImportDownwards(t *testing.T) {
	const room = "github.com/ententehq/entente/raftstore"
	floorOf := func(path string) (string, bool) {
		floor, ok := strings.CutPrefix(path, room)
		return strings.TrimPrefix(floor, "/"), ok
	}
	loaded, err := packages.Load(&packages.Config{Mode: packages.NeedName | packages.NeedImports}, "./...")
	require.NoError(t, err)
	require.Len(t, loaded, len(floors), "add a new package to floors")
	for _, pkg := range loaded {
		floor, _ := floorOf(pkg.PkgPath)
		require.Contains(t, floors, floor)
		for path := range pkg.Imports {
			if below, ok := floorOf(path); ok {
				assert.Contains(t, floors[floor], below, "%s imports %s", floor, below)
			}
		}
	}
}
