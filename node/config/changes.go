package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Changes returns the names of the settings whose effective value differs between two configurations, in order. A
// block in another is a part of the name: authority.keys "disk".encryption "key".key.
func Changes(was, now *Config) []string {
	before, after := was.settings(), now.settings()
	changed := map[string]bool{}
	for name, value := range before {
		if other, ok := after[name]; !ok || other != value {
			changed[name] = true
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			changed[name] = true
		}
	}
	return slices.Sorted(maps.Keys(changed))
}

// settings returns every setting with the text of its value. A secret that is in the file itself is there with its
// value: the result must not be printed.
func (c *Config) settings() map[string]string {
	out := map[string]string{}
	for i, value := range c.literals {
		out[fmt.Sprintf("secret %d in the file", i+1)] = value
	}
	file, diags := hclsyntax.ParseConfig(c.effective, "effective", hcl.InitialPos)
	body, ok := file.Body.(*hclsyntax.Body)
	if diags.HasErrors() || !ok {
		panic("config: the effective configuration does not parse: " + diags.Error()) // decodeConfig wrote it
	}
	flatten(out, "", c.effective, body)
	return out
}

func flatten(out map[string]string, within string, src []byte, body *hclsyntax.Body) {
	for name, attribute := range body.Attributes {
		out[within+name] = string(attribute.Expr.Range().SliceBytes(src))
	}
	seen := map[string]int{}
	for _, b := range body.Blocks {
		name := strings.Join(append([]string{b.Type}, quoted(b.Labels)...), " ")
		if seen[name]++; seen[name] > 1 {
			name = fmt.Sprintf("%s (%d)", name, seen[name])
		}
		out[within+name] = "present"
		flatten(out, within+name+".", src, b.Body)
	}
}

func quoted(labels []string) (out []string) {
	for _, l := range labels {
		out = append(out, fmt.Sprintf("%q", l))
	}
	return out
}
