package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// unquotedValue matches a setting whose value is no string, list or block.
var unquotedValue = regexp.MustCompile(`([a-z0-9_]+)\s*=\s*([^"\[\]{}#\s<][^"#{}]*?)\s*(?:[#}].*)?$`)

// plainValue matches the values that need no quotes.
var plainValue = regexp.MustCompile(`^(?:-?[0-9.]+|true|false|null)$`)

// unquoted replaces errors of the syntax on lines whose value lacks its quotes, which HCL explains by the first
// character that it cannot read.
func unquoted(src []byte, diags hcl.Diagnostics) hcl.Diagnostics {
	lines := strings.Split(string(src), "\n")
	var out hcl.Diagnostics
	replaced := map[int]bool{}
	for _, one := range diags {
		if one.Subject == nil || one.Subject.Start.Line > len(lines) {
			out = append(out, one)
			continue
		}
		line := one.Subject.Start.Line
		found := unquotedValue.FindStringSubmatch(strings.TrimSpace(lines[line-1]))
		switch {
		case replaced[line]:
			continue
		case found != nil && !plainValue.MatchString(found[2]):
			replaced[line] = true
			copied := *one
			copied.Detail = fmt.Sprintf("%s: %s is not quoted; write %[1]s = %[3]q", found[1], found[2], found[2])
			one = &copied
		}
		out = append(out, one)
	}
	return out
}

// variable explains an expression with names in it, which HCL takes for variables. There are none here.
func variable(name, text string, want cty.Type) string {
	switch {
	case want == cty.Bool || want == cty.Number:
		return fmt.Sprintf("%s is not %s", text, form(want))
	case strings.Contains(text, "${"):
		return "the file has no variables: write the value itself, or $${ for the two characters ${"
	case strings.HasPrefix(text, "["):
		return fmt.Sprintf("a value of the list is not quoted; write %s = [\"…\", \"…\"]", name)
	}
	return fmt.Sprintf("%s is not quoted; write %s = %q", text, name, text)
}

// otherType explains a value that is not of the wanted type.
func otherType(name, text string, given cty.Value, want cty.Type) string {
	isList := given.Type().IsTupleType() || given.Type().IsListType()
	switch {
	case want.IsListType() && !given.IsNull() && given.Type() == cty.String:
		return fmt.Sprintf("must be a list; write %s = [%s]", name, text)
	case !want.IsListType() && isList && given.LengthInt() == 1:
		return fmt.Sprintf("must be one value and not a list; write %s = %s", name,
			strings.TrimSpace(strings.Trim(text, "[]")))
	case !want.IsListType() && isList:
		return "must be one value and not a list"
	}
	return "must be " + form(want)
}

// form describes the values of a type.
func form(want cty.Type) string {
	switch want {
	case cty.Bool:
		return "true or false"
	case cty.Number:
		return "a number"
	case cty.String:
		return "a text in quotes"
	}
	return `a list of texts in quotes, such as ["a", "b"]`
}

// missing matches the error of HCL on a setting that is required.
var missing = regexp.MustCompile(`^The argument "(\w+)" is required, but no definition was found\.$`)

// named names the block in errors on missing settings.
func named(block string, diags hcl.Diagnostics) hcl.Diagnostics {
	for _, one := range diags {
		if found := missing.FindStringSubmatch(one.Detail); found != nil {
			one.Detail = fmt.Sprintf("%s.%s is missing", block, found[1])
		}
	}
	return diags
}

// misplaced adds to the errors on unknown names where a name that exists elsewhere belongs.
func misplaced(src []byte, diags hcl.Diagnostics) hcl.Diagnostics {
	for _, one := range diags {
		unknown := one.Summary == "Unsupported argument" || one.Summary == "Unsupported block type"
		if !unknown || one.Subject == nil || strings.Contains(one.Detail, "to define") {
			continue
		}
		name := string(one.Subject.SliceBytes(src))
		where := homes(name)
		if len(where) == 0 {
			continue
		}
		first, _, _ := strings.Cut(one.Detail, ". ")
		belong := "it belongs"
		if one.Summary == "Unsupported block type" {
			belong = "they belong"
		}
		one.Detail = fmt.Sprintf("%s: %s %s.", strings.TrimSuffix(first, "."), belong, strings.Join(where, ", or "))
	}
	return diags
}

// homes returns the places in which a name is known.
func homes(name string) []string {
	var out []string
	for place, schema := range schemas() {
		known := slices.ContainsFunc(schema.Attributes, func(a hcl.AttributeSchema) bool { return a.Name == name }) ||
			slices.ContainsFunc(schema.Blocks, func(b hcl.BlockHeaderSchema) bool { return b.Type == name })
		switch {
		case known && place == "":
			out = append(out, "outside of all blocks")
		case known:
			out = append(out, "in "+place)
		}
	}
	slices.Sort(out)
	return out
}

// schemas returns the schema of each block, by its place.
func schemas() map[string]*hcl.BodySchema {
	out := map[string]*hcl.BodySchema{
		"":                    topSchema(),
		"bundle_endpoint":     endpointSchema,
		"telemetry":           telemetrySchema,
		"agents":              agentsSchema,
		"x509pop":             x509popSchema.hcl(),
		"kubernetes":          kubernetesSchema.hcl(),
		"traces":              tracesSchema.hcl(),
		"profile":             webProfileSchema,
		"acme":                acmeSchema.hcl(),
		"upstream selfsigned": selfSignedSchema.hcl(),
		"upstream vault":      vaultSchema,
		"domain":              vaultDomainSchema,
		"keys disk":           keysSchema,
		"keys vault_transit":  transitSchema(),
		"encryption key":      wrappingSchema.hcl(),
	}
	for name, schema := range blocks {
		out[name] = schema.hcl()
	}
	out["authority"] = authoritySchema()
	for method, schema := range vaultAuthSchemas {
		out["auth "+method] = schema.hcl()
	}
	return out
}

func topSchema() *hcl.BodySchema {
	top := &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
		{Type: "bundle_endpoint"}, {Type: "telemetry"}, {Type: "agents"},
		{Type: "upstream", LabelNames: []string{"name"}},
	}}
	for name := range blocks {
		top.Blocks = append(top.Blocks, hcl.BlockHeaderSchema{Type: name})
	}
	return top
}

func authoritySchema() *hcl.BodySchema {
	schema := blocks["authority"].hcl()
	schema.Blocks = []hcl.BlockHeaderSchema{{Type: "keys", LabelNames: []string{"name"}}}
	return schema
}
