package monitoring_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/ententehq/entente/deploy/monitoring"
)

// rules is a file of rules, as far as these tests read it.
type rules struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr         string
			Labels, Annotations map[string]string
		}
	}
}

func readYAML(t *testing.T, name string, into any) {
	content, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(content, into))
}

// Each dashboard is there as JSON, as `make generate` writes it.
func TestDashboardsAreGenerated(t *testing.T) {
	var want []string
	for _, d := range monitoring.Dashboards() {
		content, err := d.JSON()
		require.NoError(t, err)
		file := filepath.Join("dashboards", d.Name+".json")
		have, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(have), string(content), "%s is out of date: run make generate", file)
		want = append(want, file)
	}
	have, err := filepath.Glob("dashboards/*")
	require.NoError(t, err)
	require.ElementsMatch(t, want, have)
}

// Prometheus accepts the rules, and each alert fires by what rules_test.yaml states, and by nothing else.
func TestAlertsFire(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("promtool is missing: install Prometheus")
		}
		t.Skip("left out: promtool is missing")
	}
	for _, command := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "rules_test.yaml"}} {
		out, err := exec.Command(promtool, command...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

// Every alert has a severity and leads to a heading of the documentation, which says what to do. It has series by which
// it fires, and series by which it does not.
func TestAlertsLeadToARemedy(t *testing.T) {
	var all rules
	readYAML(t, "rules.yaml", &all)
	var cases struct {
		Tests []struct {
			Alerts []struct {
				Name     string           `json:"alertname"`
				Expected []map[string]any `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		}
	}
	readYAML(t, "rules_test.yaml", &cases)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, c := range cases.Tests {
		for _, a := range c.Alerts {
			fires[a.Name] = fires[a.Name] || len(a.Expected) > 0
			silent[a.Name] = silent[a.Name] || len(a.Expected) == 0
		}
	}
	metrics, err := os.ReadFile("../../docs/operating/metrics.md")
	require.NoError(t, err)
	alerts := 0
	for _, g := range all.Groups {
		for _, rule := range g.Rules {
			alerts++
			require.Contains(t, []string{"info", "warning", "critical"}, rule.Labels["severity"], rule.Alert)
			require.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
			require.True(t, fires[rule.Alert] && silent[rule.Alert], "%s has no two cases in rules_test.yaml",
				rule.Alert)
			const pages = "https://github.com/ententehq/entente/blob/main/"
			page, ok := strings.CutPrefix(rule.Annotations["runbook_url"], pages)
			require.True(t, ok, rule.Alert)
			page, heading, _ := strings.Cut(page, "#")
			require.Contains(t, headings(t, filepath.Join("..", "..", page)), heading, rule.Alert)
			for _, s := range monitoring.Selectors(rule.Expr) {
				require.Contains(t, string(metrics), s.Metric, "docs/operating/metrics.md does not say why %s alerts",
					rule.Alert)
			}
		}
	}
	require.GreaterOrEqual(t, alerts, 40)
	require.Len(t, fires, alerts)
}

var headingForm = regexp.MustCompile(`(?m)^#{2,3} (.+)$`)

// headings returns the anchors of a page, as GitHub makes them.
func headings(t *testing.T, page string) (anchors []string) {
	content, err := os.ReadFile(page)
	require.NoError(t, err)
	for _, h := range headingForm.FindAllStringSubmatch(string(content), -1) {
		anchor := strings.ReplaceAll(strings.ToLower(h[1]), " ", "-")
		anchors = append(anchors, regexp.MustCompile(`[^a-z0-9_-]`).ReplaceAllString(anchor, ""))
	}
	return anchors
}

func TestSelectors(t *testing.T) {
	found := monitoring.Selectors(`sum by (job) (rate(entente_a_total{kind="x", cluster=~"$cluster"}[5m])) - ` +
		`raft_peers + time()`)
	require.Equal(t, []monitoring.Selector{
		{"entente_a_total", []monitoring.Matcher{{"kind", "=", "x"}, {"cluster", "=~", "$cluster"}}},
		{"raft_peers", nil},
	}, found)
}
