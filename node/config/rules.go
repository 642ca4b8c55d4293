package config

import (
	"bytes"
	"fmt"

	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
	"google.golang.org/protobuf/encoding/protojson"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// ruleFile is a file of routing rules: one block for each service.
type ruleFile struct {
	Rules []ruleBlock `hcl:"rule,block"`
}

type ruleBlock struct {
	Service                string              `hcl:"service,label"`
	OverprovisioningFactor *uint32             `hcl:"overprovisioning_factor,optional"`
	FailoverThreshold      *uint32             `hcl:"failover_threshold,optional"`
	PanicThreshold         *uint32             `hcl:"panic_threshold,optional"`
	Stale                  string              `hcl:"stale,optional"`
	Failover               []failoverBlock     `hcl:"failover,block"`
	Distribution           []distributionBlock `hcl:"distribution,block"`
}

type failoverBlock struct {
	From string   `hcl:"from,label"`
	To   []string `hcl:"to"`
}

type distributionBlock struct {
	From string            `hcl:"from,label"`
	To   map[string]uint32 `hcl:"to"`
}

// ParseRules parses a file of routing rules: HCL, or JSON as 'entente rule list --output json' prints it. Unknown names
// are errors. The server checks the rules themselves.
func ParseRules(name string, content []byte) ([]*ententev1.RoutingRule, error) {
	if bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) {
		var list ententev1.ListRulesResponse
		if err := protojson.Unmarshal(content, &list); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return list.GetRules(), nil
	}
	file, diags := hclparse.NewParser().ParseHCL(content, name)
	if diags.HasErrors() {
		return nil, sentences(diags)
	}
	var parsed ruleFile
	if diags := gohcl.DecodeBody(file.Body, nil, &parsed); diags.HasErrors() {
		return nil, sentences(diags)
	}
	var rules []*ententev1.RoutingRule
	for _, b := range parsed.Rules {
		rule := &ententev1.RoutingRule{
			Service: b.Service, OverprovisioningFactor: b.OverprovisioningFactor,
			FailoverThreshold: b.FailoverThreshold,
			PanicThreshold:    b.PanicThreshold, Stale: b.Stale,
		}
		for _, f := range b.Failover {
			rule.Failover = append(rule.Failover, &ententev1.FailoverRule{From: f.From, To: f.To})
		}
		for _, d := range b.Distribution {
			rule.Distribution = append(rule.Distribution, &ententev1.DistributionRule{From: d.From, To: d.To})
		}
		rules = append(rules, rule)
	}
	return rules, nil
}
