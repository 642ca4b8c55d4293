package docs

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/shorttest"
)

const root = "../.."

// pages returns the blocks of every tracked page that a person wrote, by its path. Those of the Terraform provider are
// made from its schema.
func pages(t *testing.T) map[string][]Block {
	t.Helper()
	out, err := exec.Command("git", "-C", root, "ls-files", ":(glob)*.md", "docs", "examples/*.md").Output()
	require.NoError(t, err)
	found := map[string][]Block{}
	for path := range strings.FieldsSeq(string(out)) {
		text, err := os.ReadFile(filepath.Join(root, path))
		require.NoError(t, err)
		blocks, err := Parse(string(text))
		require.NoError(t, err, path)
		found[path] = blocks
	}
	require.Contains(t, found, "docs/tour.md")
	return found
}

// TestEveryBlockRunsOrStatesWhyNot requires a language for each fenced block, and a world or a reason for each block of
// commands.
func TestEveryBlockRunsOrStatesWhyNot(t *testing.T) {
	run := 0
	for path, blocks := range pages(t) {
		for _, b := range blocks {
			at := fmt.Sprintf("%s:%d", path, b.Line)
			assert.NotEmpty(t, b.Language, "%s: the block names no language: console, sh, hcl, json, text, …", at)
			if b.Commands() {
				assert.False(t, b.World == "" && b.NotRun == "", "%s: the commands neither run nor state why not", at)
			}
			if b.Runs() {
				run++
			}
		}
	}
	assert.Greater(t, run, 20, "the pages have hardly any commands")
}

// TestPages runs the commands of every page.
func TestPages(whole *testing.T) {
	shorttest.Skip(whole, "runs the commands of the documentation")
	found := pages(whole)
	var shared *world // the demo has the most members: one is enough for all pages
	demo := func(t *testing.T) *world {
		if shared == nil {
			shared = newWorld(t, whole, "demo")
		}
		return shared
	}
	whole.Run("what --dev prints", func(t *testing.T) { runPrinted(t, newWorld(t, t, "dev"), "") })
	whole.Run("what the demo prints", func(t *testing.T) { runPrinted(t, demo(t), "eu") })
	for _, path := range slices.Sorted(maps.Keys(found)) {
		if !slices.ContainsFunc(found[path], Block.Runs) {
			continue
		}
		whole.Run(strings.ReplaceAll(path, "/", " "), func(t *testing.T) {
			if !slices.ContainsFunc(found[path], func(b Block) bool { return b.World == "demo" }) {
				t.Parallel() // pages that share the demo run one after the other
			}
			offerAll(t, found[path])
			worlds := map[string]*world{}
			for _, b := range found[path] {
				if !b.Runs() {
					continue
				}
				w := worlds[b.World]
				switch {
				case b.World == "demo":
					w = demo(t)
				case w == nil:
					w = newWorld(t, t, b.World)
				}
				worlds[b.World], w.t = w, t
				if b.File != "" {
					w.write(b.Place, b.File, b.Text)
				}
				for _, s := range b.Steps {
					runStep(t, w, s, path)
				}
			}
		})
	}
}

// runPrinted runs the commands that the demo or a --dev server prints.
func runPrinted(t *testing.T, w *world, place string) {
	w.t = t
	w.at(place)
	commands := regexp.MustCompile(`(?m)^  (entente|curl) .*$`).FindAllString(w.printed, -1)
	require.GreaterOrEqual(t, len(commands), 3, "%s", w.printed)
	_, missing := exec.LookPath("curl")
	for _, command := range commands {
		if missing != nil && strings.HasPrefix(command, "  curl ") {
			t.Logf("left out: %s: curl is not on the PATH", command)
			continue
		}
		w.run(place, command)
	}
}

// repeatable are the exit statuses of a cluster that is too busy to answer (docs/operating/errors.md).
var repeatable = []int{6, 7, 8}

// runStep runs one command of a page, and compares what it prints with what the page shows.
func runStep(t *testing.T, w *world, s Step, path string) {
	t.Helper()
	text := func(text string) string {
		if w.rewrites == nil {
			return text
		}
		return w.rewrites(s.Place, text)
	}
	begun := time.Now()
	defer func() { t.Logf("%6.2f s  %s:%d", time.Since(begun).Seconds(), path, s.Line) }()
	shell := w.at(s.Place)
	shown := strings.Split(text(strings.Join(s.Shown, "\n")), "\n")
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	if s.Stays() {
		log, err := shell.Start(ctx, text(s.Command))
		require.NoError(t, err, "%s:%d", path, s.Line)
		if len(s.Shown) > 0 {
			until(t, s.Command, func() bool {
				printed, err := os.ReadFile(log)
				require.NoError(t, err)
				return Compare(append(shown, "…"), strings.Split(string(printed), "\n")) == nil
			})
		}
		return
	}
	last := func() string { return "" }
	defer func() {
		if t.Failed() {
			t.Logf("%s:%d: %s\n%s", path, s.Line, s.Command, last())
		}
	}()
	until(t, s.Command, func() bool {
		output, status, err := shell.Run(ctx, text(s.Command))
		require.NoError(t, err, "%s:%d: %s", path, s.Line, s.Command)
		var differs error
		if len(s.Shown) > 0 {
			differs = Compare(shown, output)
		}
		last = func() string {
			explained := strings.Join(output, "\n")
			if differs != nil {
				explained = differs.Error()
			}
			return explained
		}
		right := differs == nil && (status != 0) == s.Fails()
		if !right && !s.Reads() && !slices.Contains(repeatable, status) {
			t.Fatalf("%s:%d: exit status %d", path, s.Line, status)
		}
		return right
	})
}
