package docs

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/devbuild"
	"github.com/ententehq/entente/internal/shorttest"
)

// peer is a program of another project that pages run.
type peer struct {
	devbuild.Program
	what string
}

// peers are the programs of other projects, by the name that pages use.
var peers = map[string]peer{
	"istio-reader": {devbuild.Program{Module: "istiodev", Package: "."}, "Istio's reader of bundle endpoints"},
	"kubedev":      {devbuild.Program{Module: "kubedev", Package: "."}, "a Kubernetes API server"},
	"spire-server": {
		devbuild.Program{
			Module: "spiredev", Package: "./cmd/spire-server", Copied: "github.com/spiffe/spire",
			Files: "pkg/server/catalog/*.go", Drop: clouds,
		},
		"SPIRE's server",
	},
	"spiffe-helper": {devbuild.SPIFFEHelper, "spiffe-helper"},
	"tofu":          {devbuild.OpenTofu, "OpenTofu"},
}

// tools are programs of the machine that pages run.
var tools = []string{"curl", "openssl", "kubectl"}

// commands are the project's own commands beside entente, built for the pages that run them.
var commands = []string{"entente-kubernetes"}

// offerAll offers the programs that the blocks of a page run, and leaves the page out if one is missing.
func offerAll(t *testing.T, blocks []Block) {
	t.Helper()
	for _, name := range programs(blocks) {
		if p, ok := peers[name]; ok {
			p.offer(t, name)
		} else if slices.Contains(commands, name) {
			file := filepath.Join(filepath.Dir(command), name)
			out, err := exec.CommandContext(
				t.Context(), "go", "build", "-o", file, filepath.Join(root, "cmd", name),
			).CombinedOutput()
			require.NoError(t, err, "%s", out)
		} else if _, err := exec.LookPath(name); err != nil {
			t.Skipf("left out: needs the command %s, which is not on the PATH", name)
		}
	}
}

// clouds are the lines of SPIRE's lists of plugins that the guide does not need. They cost more than half of the build.
var clouds = regexp.MustCompile(
	`\b(aws|azure|gcp|gcs|k8s|certmanager|ejbca|vault|tpmdevid|sshpop|httpchallenge|x509pop)\w*("|\.BuiltIn\(\),)\s*$`,
)

// programs returns the names of the peers and tools that the blocks of a page run.
func programs(blocks []Block) (names []string) {
	for _, name := range slices.Concat(slices.Collect(maps.Keys(peers)), tools, commands) {
		if slices.ContainsFunc(blocks, func(b Block) bool {
			return slices.ContainsFunc(b.Steps, func(s Step) bool { return strings.HasPrefix(s.words(), name+" ") })
		}) {
			names = append(names, name)
		}
	}
	return slices.Sorted(slices.Values(names))
}

// offer puts the program beside the built command. It is built in CI alone, where [TestRealPeers] does so before; the
// first build of SPIRE takes some minutes.
func (p peer) offer(t *testing.T, name string) {
	t.Helper()
	if os.Getenv("CI") == "" {
		built, err := p.Built(t.Context())
		require.NoError(t, err)
		if built == "" {
			t.Skipf("left out: needs %s, which is not built yet: make peers", p.what)
		}
	}
	program, err := p.Build(t.Context())
	require.NoError(t, err)
	if err := os.Symlink(program, filepath.Join(filepath.Dir(command), name)); !os.IsExist(err) {
		require.NoError(t, err)
	}
}

// TestRealPeers builds the programs of other projects, in CI or for `make peers`.
func TestRealPeers(t *testing.T) {
	shorttest.Skip(t, "builds real servers")
	for _, name := range slices.Sorted(maps.Keys(peers)) {
		t.Run(name, func(t *testing.T) { peers[name].offer(t, name) })
	}
}
