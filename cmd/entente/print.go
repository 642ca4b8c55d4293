package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// What --output can be.
const (
	outputTable = "table"
	outputJSON  = "json"
	outputYAML  = "yaml"
)

var outputs = []string{outputTable, outputJSON, outputYAML}

// print prints a resource: as JSON or YAML as it is, as a table by fill. A resource is a protobuf message, or a report
// with JSON tags.
func (a *app) print(resource any, fill func(t *table)) error {
	if a.flags.output == outputTable {
		t := &table{}
		fill(t)
		return t.write(a.stdout)
	}
	b, err := document(resource)
	if err != nil {
		return err
	}
	if a.flags.output == outputYAML {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return fmt.Errorf("print as YAML: %w", err)
		}
		_, err = a.stdout.Write(b)
		return err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, b, "", "  "); err != nil {
		return fmt.Errorf("print as JSON: %w", err)
	}
	_, err = fmt.Fprintln(a.stdout, indented.String())
	return err
}

// printOne prints one of a stream of resources: a line of JSON, a YAML document, or a line of text.
func (a *app) printOne(resource any, line func() string) error {
	if a.flags.output == outputTable {
		_, err := fmt.Fprintln(a.stdout, line())
		return err
	}
	b, err := document(resource)
	if err != nil {
		return err
	}
	if a.flags.output == outputYAML {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return fmt.Errorf("print as YAML: %w", err)
		}
		_, err = fmt.Fprintf(a.stdout, "---\n%s", b)
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", b)
	return err
}

// document is a resource as compact JSON, always the same bytes for the same content, with the field names of the API.
func document(resource any) ([]byte, error) {
	m, ok := resource.(proto.Message)
	if !ok {
		b, err := json.Marshal(resource)
		if err != nil {
			return nil, fmt.Errorf("print as JSON: %w", err)
		}
		return b, nil
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("print as JSON: %w", err)
	}
	var compact bytes.Buffer // protojson varies its white space on purpose
	if err := json.Compact(&compact, b); err != nil {
		return nil, fmt.Errorf("print as JSON: %w", err)
	}
	return compact.Bytes(), nil
}

// printable replaces what a terminal would not simply show: names and messages come from elsewhere.
func printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}
