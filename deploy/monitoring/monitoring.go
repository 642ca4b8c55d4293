// Package monitoring has what Prometheus and Grafana need of Entente: the alerts in rules.yaml, with what makes each
// fire in rules_test.yaml, and the dashboards of [Dashboards], which `go generate` writes as JSON.
//
// Members are scraped under the job "entente", with a label cluster that names their cluster. Agents can have any job.
package monitoring

import (
	"encoding/json"
	"regexp"
)

//go:generate go run ./generate dashboards

// Panel is a graph of one or more queries.
type Panel struct {
	Title string
	// About is what a person should know of it.
	About   string
	Unit    string // of Grafana: short, s, percentunit, ops, dateTimeFromNow
	Queries []Query
}

// Query is a PromQL expression, and the legend of its series.
type Query struct{ Expr, Legend string }

// Dashboard is a page of panels.
type Dashboard struct {
	Name, Title string
	Panels      []Panel
}

// panelWidth and panelHeight are in units of Grafana's grid, which is 24 wide.
const (
	panelWidth  = 12
	panelHeight = 8
)

// JSON returns the dashboard as Grafana imports it. It asks for the data source, and offers the clusters.
func (d Dashboard) JSON() ([]byte, error) {
	type object = map[string]any
	source := object{"type": "prometheus", "uid": "${datasource}"}
	var panels []object
	for i, p := range d.Panels {
		var targets []object
		for j, q := range p.Queries {
			targets = append(targets, object{
				"refId": string(rune('A' + j)), "expr": q.Expr, "legendFormat": q.Legend, "datasource": source,
			})
		}
		panels = append(panels, object{
			"id": i + 1, "type": "timeseries", "title": p.Title, "description": p.About, "datasource": source,
			"gridPos": object{
				"x": i % 2 * panelWidth, "y": i / 2 * panelHeight, "w": panelWidth, "h": panelHeight,
			},
			"fieldConfig": object{"defaults": object{"unit": p.Unit}, "overrides": []any{}},
			"targets":     targets,
		})
	}
	out, err := json.MarshalIndent(object{
		"uid": "entente-" + d.Name, "title": d.Title, "tags": []string{"entente"}, "schemaVersion": 39, "version": 1,
		"editable": true, "refresh": "30s", "time": object{"from": "now-6h", "to": "now"}, "panels": panels,
		"templating": object{"list": []object{
			{"name": "datasource", "type": "datasource", "query": "prometheus"},
			{
				"name": "cluster", "type": "query", "datasource": source, "includeAll": true, "multi": true,
				"query": "label_values(entente_raftstore_leader, cluster)", "refresh": 2,
				"current": object{"text": "All", "value": "$__all"},
			},
		}},
	}, "", "  ")
	return append(out, '\n'), err
}

// Selector is a metric in an expression, with the labels that the expression names of it.
type Selector struct {
	Metric   string
	Matchers []Matcher
}

// Matcher is a condition on a label: = or =~, != or !~.
type Matcher struct{ Label, Operator, Value string }

var (
	selectorForm = regexp.MustCompile(`\b((?:entente|raft|process)_[a-z0-9_]+)(?:\{([^}]*)\})?`)
	matcherForm  = regexp.MustCompile(`([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
)

// Selectors returns the selectors of an expression.
func Selectors(expr string) (all []Selector) {
	for _, found := range selectorForm.FindAllStringSubmatch(expr, -1) {
		s := Selector{Metric: found[1]}
		for _, m := range matcherForm.FindAllStringSubmatch(found[2], -1) {
			s.Matchers = append(s.Matchers, Matcher{m[1], m[2], m[3]})
		}
		all = append(all, s)
	}
	return all
}
