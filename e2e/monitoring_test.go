package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/ententehq/entente/deploy/monitoring"
	"github.com/ententehq/entente/internal/shorttest"
)

// absent are metrics that two regions in good health do not have, with the reason.
var absent = map[string]string{
	"entente_agent_attestations_total":                             "of an agent",
	"entente_agent_entries":                                        "of an agent",
	"entente_agent_expiry_seconds":                                 "of an agent",
	"entente_agent_messages_total":                                 "of an agent",
	"entente_agent_svids":                                          "of an agent",
	"entente_authority_anchors":                                    "with Vault",
	"entente_authority_keys_locked":                                "with encrypted keys",
	"entente_authority_statement_chains_total":                     "after a chain restarted",
	"entente_bundle_endpoint_certificate_expiry_timestamp_seconds": "with https_web",
	"entente_federation_alarm":                                     "after an alarm",
	"entente_federation_hub_maps_total":                            "with a hub",
	"entente_routing_xds_refused_total":                            "after a client refused an update",
	"entente_snapshot_last_success_timestamp_seconds":              "with a schedule of snapshots",
	"entente_snapshot_saves_total":                                 "with a schedule of snapshots",
	"entente_tracing_spans_total":                                  "with traces",
	"entente_vaultca_up":                                           "with Vault",
	"entente_vaultca_transit_keys":                                 "with keys in Vault",
	"entente_vaultca_transit_up":                                   "with keys in Vault",
}

// rare are selectors whose labels two regions in good health do not have: a failure makes the first series.
var rare = regexp.MustCompile(`^entente_(authority_signatures_total|federation_fetches_total|` +
	`routing_import_sets_total|federation_streams_ended_total)\{`)

// demoMetrics matches a line of the demo on a member.
var demoMetrics = regexp.MustCompile(`^  ((eu|us)-\d)  http://(\S+)/metrics`)

// TestMonitoring scrapes two federated regions, and looks for what every alert and every panel selects.
func TestMonitoring(t *testing.T) {
	shorttest.Skip(t, "runs the demo")
	targets := runDemo(t)
	require.Len(t, targets, 6)
	families := map[string]*dto.MetricFamily{}
	for _, address := range targets {
		for name, family := range scrapeFamilies(t, address) {
			if known := families[name]; known != nil {
				known.Metric = append(known.Metric, family.Metric...)
			} else {
				families[name] = family
			}
		}
	}
	selectors := 0
	expressions := expressionsOf(t)
	for where, expr := range expressions {
		for _, s := range monitoring.Selectors(expr) {
			selectors++
			name := strings.TrimSuffix(s.Metric, "_bucket")
			family := families[name]
			if reason, ok := absent[name]; ok {
				assert.Nil(t, family, "%s is there: it is not only %s", name, reason)
				continue
			}
			if !assert.NotNil(t, family, "%s selects %s, which no member has", where, name) {
				continue
			}
			matched := 0
			for _, m := range family.GetMetric() {
				if matches(t, where, m, s) {
					matched++
				}
			}
			if !rare.MatchString(s.Metric + "{") {
				assert.NotZero(t, matched, "%s selects nothing of %s by %v", where, name, s.Matchers)
			}
		}
	}
	require.Greater(t, selectors, 90)
	t.Run("Prometheus", func(t *testing.T) { queryPrometheus(t, targets, expressions) })
}

// matches reports whether a series is selected. The labels that Prometheus adds are not in it; each other one must be.
func matches(t *testing.T, where string, m *dto.Metric, s monitoring.Selector) bool {
	labels := map[string]string{}
	for _, l := range m.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	for _, c := range s.Matchers {
		if c.Label == "job" || c.Label == "cluster" || c.Label == "instance" {
			continue
		}
		value, ok := labels[c.Label]
		assert.True(t, ok, "%s selects %s by the label %s, which it does not have", where, s.Metric, c.Label)
		equal := value == c.Value
		if strings.HasSuffix(c.Operator, "~") {
			equal = regexp.MustCompile("^(?:" + c.Value + ")$").MatchString(value)
		}
		if equal == strings.HasPrefix(c.Operator, "!") {
			return false
		}
	}
	return true
}

// expressionsOf returns the expressions of all alerts and panels, by where they are.
func expressionsOf(t *testing.T) map[string]string {
	out := map[string]string{}
	for _, d := range monitoring.Dashboards() {
		for _, p := range d.Panels {
			for i, q := range p.Queries {
				out[fmt.Sprintf("panel %s / %s %d", d.Title, p.Title, i)] = strings.ReplaceAll(q.Expr, "$cluster", ".*")
			}
		}
	}
	content, err := os.ReadFile("../deploy/monitoring/rules.yaml")
	require.NoError(t, err)
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	require.NoError(t, yaml.Unmarshal(content, &rules))
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			out["alert "+r.Alert] = r.Expr
		}
	}
	return out
}

// runDemo runs the demo until the end of the test, and returns the addresses of its members' operations listeners.
func runDemo(t *testing.T) map[string]string {
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, binary, "demo")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = cmd.Stdout
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	})
	targets := map[string]string{}
	var printed []string
	for lines := bufio.NewScanner(out); len(targets) < 6 && lines.Scan(); {
		printed = append(printed, lines.Text())
		if found := demoMetrics.FindStringSubmatch(lines.Text()); found != nil {
			targets[found[1]] = found[3]
		}
	}
	require.Len(t, targets, 6, "the demo printed:\n%s", strings.Join(printed, "\n"))
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return targets
}

func scrapeFamilies(t *testing.T, address string) map[string]*dto.MetricFamily {
	answer, err := http.Get("http://" + address + "/metrics")
	require.NoError(t, err)
	defer answer.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	require.NoError(t, err)
	return families
}

// queryPrometheus lets a real Prometheus scrape the members: it evaluates every rule and every panel.
func queryPrometheus(t *testing.T, targets, expressions map[string]string) {
	prometheus, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("prometheus is missing: install it")
		}
		t.Skip("left out: prometheus is missing")
	}
	rules, err := filepath.Abs("../deploy/monitoring/rules.yaml")
	require.NoError(t, err)
	dir := t.TempDir()
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n"+
		"  - job_name: entente\n    static_configs:\n", rules)
	for id, address := range targets {
		config += fmt.Sprintf("      - {targets: [%q], labels: {cluster: %q}}\n", address, id[:2])
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600))
	listen := freePorts(t, 1)[0]
	server := exec.Command(prometheus, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+listen)
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	server.Stdout, server.Stderr = log, log
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		_ = log.Close()
	})
	get := func(path string, into any) error {
		answer, err := http.Get("http://" + listen + path)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		content, err := io.ReadAll(answer.Body)
		if err == nil && answer.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", answer.Status, content)
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(content, into)
	}
	query := func(expr string) (found int, err error) {
		var answer struct{ Data struct{ Result []any } }
		err = get("/api/v1/query?query="+url.QueryEscape(expr), &answer)
		return len(answer.Data.Result), err
	}
	eventually(t, "Prometheus has scraped every member twice", func() error {
		n, err := query(`count_over_time(entente_raftstore_leader[1m]) >= 2`)
		if err == nil && n != len(targets) {
			err = fmt.Errorf("%d members", n)
		}
		return err
	})
	for _, where := range slices.Sorted(maps.Keys(expressions)) {
		n, err := query(expressions[where])
		require.NoError(t, err, where)
		known := true
		for _, s := range monitoring.Selectors(expressions[where]) {
			known = known && absent[s.Metric] == ""
		}
		if strings.HasPrefix(where, "panel ") && known {
			assert.NotZero(t, n, "%s shows nothing: %s", where, expressions[where])
		}
	}
	eventually(t, "every rule is evaluated", func() error {
		var answer struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name, Health, LastError string }
				}
			}
		}
		if err := get("/api/v1/rules", &answer); err != nil {
			return err
		}
		n := 0
		for _, g := range answer.Data.Groups {
			for _, r := range g.Rules {
				if n++; r.Health != "ok" {
					return fmt.Errorf("%s: %s %s", r.Name, r.Health, r.LastError)
				}
			}
		}
		if n < 40 {
			return fmt.Errorf("%d rules", n)
		}
		return nil
	})
}
