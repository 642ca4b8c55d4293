package docs

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// waitLimit bounds every wait. It is generous: a test that succeeds waits only for the condition itself.
const waitLimit = time.Minute

// startLimit is how long the demo or a --dev server may take until it has printed its block: the demo has nine steps.
const startLimit = 5 * time.Minute

// world is where the commands of a page run: a folder, and a shell for each place.
type world struct {
	t       *testing.T
	folder  string
	shells  map[string]*Shell
	printed string // by what the world started, for the demo and for --dev
	network byte   // the addresses 127.<network>.0.0/16 belong to the world
	places  []string

	// enter prepares a new place; nil if there is nothing to prepare.
	enter func(place string)
	// rewrites turns the names, addresses and paths of a page into those of the world.
	rewrites func(place, text string) string
}

// newWorld makes a world that lasts as long as a test, of which t is a part or the whole.
func newWorld(t, owner *testing.T, name string) *world {
	t.Helper()
	folder, err := os.MkdirTemp("", "entente-docs-") // short enough for the path of a socket
	require.NoError(t, err)
	deploy, err := filepath.Abs(filepath.Join(root, "deploy"))
	require.NoError(t, err)
	require.NoError(t, os.Symlink(deploy, filepath.Join(folder, "deploy"))) // pages run in a checkout
	w := &world{t: t, folder: folder, shells: map[string]*Shell{}}
	owner.Cleanup(func() {
		for _, s := range w.shells {
			s.Close()
		}
		require.NoError(owner, os.RemoveAll(folder))
	})
	switch name {
	case "nothing":
	case "dev":
		w.start("entente server --dev", `\n  curl `)
		w.rewrites = replaces(regexp.MustCompile(`/tmp/entente-dev-\d+`), folderOf(w.printed))
		w.enter = func(place string) { w.paste(place, w.printed) }
	case "demo":
		w.start("entente demo", `(?m)^Metrics and logs:`)
		w.enter = func(place string) {
			_, own, _ := strings.Cut(w.printed, "# "+place+"\n")
			w.paste(place, own)
		}
	case "clusters":
		w.reserve()
		w.rewrites, w.enter = w.here, func(place string) { w.cluster(place, 1) }
	case "clusters of three":
		w.reserve()
		w.rewrites, w.enter = w.here, func(place string) { w.cluster(place, 3) }
	case "machines":
		w.reserve()
		w.rewrites, w.enter = w.here, w.machine
	default:
		t.Fatalf("no world has the name %q", name)
	}
	return w
}

// environment is that of every shell: the built command first on the path, and no settings of the user.
func (w *world) environment() []string {
	return []string{
		"PATH=" + filepath.Dir(command) + ":" + os.Getenv("PATH"), "HOME=" + w.folder, "TMPDIR=" + w.folder, "TZ=UTC",
	}
}

// start runs a command in the background until it has printed a pattern.
func (w *world) start(run, pattern string) {
	w.t.Helper()
	const tries = 3 // another process can take a port between its choice and its use
	for try := range tries {
		w.printed = w.tryStart(run, regexp.MustCompile(pattern), try)
		if w.printed != "" {
			return
		}
	}
	w.t.Fatalf("%s ended at once", run)
}

func (w *world) tryStart(run string, pattern *regexp.Regexp, try int) (printed string) {
	w.t.Helper()
	shell := w.shell(fmt.Sprintf("%s %d", run, try))
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*startLimit)
	defer cancel()
	log, err := shell.Start(ctx, run)
	require.NoError(w.t, err)
	running := true
	within(w.t, startLimit, run, func() bool {
		b, err := os.ReadFile(log)
		require.NoError(w.t, err)
		printed = string(b)
		jobs, _, err := shell.Run(ctx, "jobs -r")
		require.NoError(w.t, err)
		running = len(jobs) > 0
		return !running || pattern.MatchString(printed)
	})
	if !running {
		w.t.Logf("%s ended:\n%s", run, printed)
		return ""
	}
	return printed
}

// shell returns the shell of a place, and makes it first.
func (w *world) shell(place string) *Shell {
	w.t.Helper()
	if s := w.shells[place]; s != nil {
		return s
	}
	s, err := NewShell(w.folder, w.environment())
	require.NoError(w.t, err)
	w.shells[place] = s
	return s
}

// at returns the shell of a place in which the page runs commands.
func (w *world) at(place string) *Shell {
	w.t.Helper()
	known := w.shells[place] != nil
	s := w.shell(place)
	if !known && w.enter != nil {
		w.enter(place)
	}
	return s
}

// paste runs the first lines of a printed block that set variables.
func (w *world) paste(place, printed string) {
	w.t.Helper()
	for _, export := range regexp.MustCompile(`(?m)^  export .*$`).FindAllString(printed, -1) {
		w.run(place, export)
		if strings.Contains(export, "US_ENDPOINT") {
			return // the next ones are for another region
		}
	}
	w.await(place, "entente authority list", ` active `)
}

// run runs a command that must succeed.
func (w *world) run(place, command string) []string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*waitLimit)
	defer cancel()
	output, status, err := w.shell(place).Run(ctx, command)
	require.NoError(w.t, err, "%s", command)
	require.Zero(w.t, status, "%s\n%s", command, strings.Join(output, "\n"))
	return output
}

// await repeats a command until what it prints has a pattern.
func (w *world) await(place, command, pattern string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*waitLimit)
	defer cancel()
	expression := regexp.MustCompile(pattern)
	until(w.t, command, func() bool {
		output, _, err := w.shell(place).Run(ctx, command)
		require.NoError(w.t, err)
		return expression.MatchString(strings.Join(output, "\n"))
	})
}

// until polls a condition for at most waitLimit.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	within(t, waitLimit, what, holds)
}

// within polls a condition, at intervals that two busy cores can bear.
func within(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

// reserve chooses addresses that no other world has.
func (w *world) reserve() {
	w.t.Helper()
	for range 100 {
		w.network = byte(2 + rand.IntN(250))
		l, err := net.Listen("tcp", fmt.Sprintf("127.%d.255.1:7439", w.network))
		if err == nil {
			w.t.Cleanup(func() { _ = l.Close() })
			return
		}
	}
	w.t.Fatal("no free network of loopback addresses")
}

// host is a name of a page with a port, or in a request for a certificate.
var host = regexp.MustCompile(`\b(DNS:)?([a-z]+(-[0-9])?)\.example\.org\b(:[0-9]+)?`)

// here turns the names and folders of a page into addresses of the world and folders below its own: the machine
// eu-1.example.org is eu-1, and eu.example.org:7443 the one member of the cluster eu. Names of trust domains stay.
func (w *world) here(place, text string) string {
	own := filepath.Join(w.folder, place)
	text = strings.NewReplacer(
		"/var/lib/entente", w.data(place), "/var/lib/spire", own+"/var", "/run/spire", own+"/run", "/etc/", own+"/etc/",
		"0.0.0.0", w.ip(place),
	).Replace(text)
	return host.ReplaceAllStringFunc(text, func(found string) string {
		m := host.FindStringSubmatch(found)
		switch {
		case m[1] != "":
			return "IP:" + w.ip(m[2])
		case m[4] != "":
			return w.ip(m[2]) + m[4]
		}
		return found
	})
}

// write writes a file of a page, or appends to it if the path begins with a plus sign.
func (w *world) write(place, path, text string) {
	w.t.Helper()
	w.at(place)
	path, appends := strings.CutPrefix(w.here(place, path), "+")
	if !filepath.IsAbs(path) {
		path = filepath.Join(w.folder, path)
	}
	if strings.Contains(text, "bundle_endpoint") && !strings.Contains(text, "telemetry") {
		// Each machine of a page has 127.0.0.1 for itself, which the members in the test do not.
		text += "telemetry { listen = \"0.0.0.0:7448\" }\n"
	}
	flags := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
	if appends {
		flags = os.O_WRONLY | os.O_APPEND
	}
	f, err := os.OpenFile(path, flags, 0o600)
	require.NoError(w.t, err)
	_, err = f.WriteString(w.here(place, text))
	require.NoError(w.t, err)
	require.NoError(w.t, f.Close())
}

func (w *world) data(place string) string { return filepath.Join(w.folder, place, "data") }

// ip returns the address of a machine, or of the first member of a cluster.
func (w *world) ip(place string) string {
	place = strings.TrimSuffix(place, "-1")
	at := slices.Index(w.places, place)
	if at < 0 {
		at = len(w.places)
		w.places = append(w.places, place)
	}
	return fmt.Sprintf("127.%d.100.%d", w.network, at+1)
}

// machine prepares a machine: its folders, and the admin socket of the member that the page starts there.
func (w *world) machine(place string) {
	w.t.Helper()
	for _, folder := range []string{"etc/entente", "etc/spire", "run", "var"} {
		require.NoError(w.t, os.MkdirAll(filepath.Join(w.folder, place, folder), 0o700))
	}
	w.run(place, "export ENTENTE_SOCKET="+filepath.Join(w.data(place), "admin.sock"))
}

const configuration = `
cluster {
  name         = %[1]q
  trust_domain = "%[1]s.example.org"
  region       = %[1]q
}
member {
  id       = %[2]q
  zone     = %[3]q
  data_dir = %[4]q
  listen   = "%[5]s:7440"
}
bundle_endpoint {
  listen       = "%[5]s:7443"
  refresh_hint = "10s"
}
federation {
  min_refresh      = "1s"
  peer_min_refresh = "1s"
}
telemetry { listen = "%[5]s:7448" }
`

// cluster starts a cluster of place.example.org in the region place, with a member in each of the zones a, b and c, or
// in a alone. A place with a number is a machine.
func (w *world) cluster(place string, members int) {
	w.t.Helper()
	if strings.Contains(place, "-") {
		w.machine(place)
		return
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*waitLimit)
	defer cancel()
	shell := w.shell(place)
	for n := range members {
		id, zone := fmt.Sprintf("%s-%d", place, n+1), string(rune('a'+n))
		text, form := fmt.Sprintf(configuration, place, id, zone, w.data(id), w.ip(id)), "--bootstrap"
		if n > 0 {
			token := w.run(place, "entente cluster join-token "+id+" --auto-approve 2>/dev/null")
			text += fmt.Sprintf("join {\n addresses = [\"%s:7440\"]\n token = %q\n}\n", w.ip(place), "env:TOKEN")
			w.run(place, "export TOKEN="+strings.Join(token, ""))
			form = ""
		}
		file := filepath.Join(w.folder, id+".hcl")
		require.NoError(w.t, os.MkdirAll(filepath.Dir(w.data(id)), 0o700))
		require.NoError(w.t, os.WriteFile(file, []byte(text), 0o600))
		_, err := shell.Start(ctx, "entente server --config "+file+" "+form)
		require.NoError(w.t, err)
		if n == 0 {
			w.run(place, "export ENTENTE_SOCKET="+filepath.Join(w.data(id), "admin.sock"))
			w.await(place, "entente authority list", `(?s) active .* active `)
		}
		w.await(place, "entente cluster members", `(?m)^`+id+` .* (leader|voter) .* yes `)
	}
}

// replaces returns a rewrite of a pattern.
func replaces(pattern *regexp.Regexp, by string) func(_, text string) string {
	return func(_, text string) string { return pattern.ReplaceAllString(text, by) }
}

// folderOf returns the folder in a printed block of --dev.
func folderOf(printed string) string {
	return filepath.Dir(regexp.MustCompile(`ENTENTE_SOCKET="([^"]+)"`).FindStringSubmatch(printed)[1])
}

// command is the built command.
var command string

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run()) // no test runs the command
	}
	dir, err := os.MkdirTemp("", "entente-command-")
	if err != nil {
		panic(err)
	}
	command = filepath.Join(dir, "entente")
	if out, err := exec.Command("go", "build", "-o", command, "../../cmd/entente").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build the command: %v\n%s", err, out))
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}
