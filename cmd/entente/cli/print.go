package cli

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// Values of --output.
const (
	OutputTable = "table"
	OutputJSON  = "json"
	OutputYAML  = "yaml"
)

var outputs = []string{OutputTable, OutputJSON, OutputYAML}

// Print prints a resource: as JSON or YAML, or as the table that fill makes. A resource is a protobuf message, or a
// struct with JSON tags.
func (env *Env) Print(resource any, fill func(t *Table)) error {
	if env.Output == OutputTable {
		t := &Table{}
		fill(t)
		return t.write(env.Stdout)
	}
	b, err := document(resource)
	if err != nil {
		return err
	}
	if env.Output == OutputYAML {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return fmt.Errorf("print as YAML: %w", err)
		}
		_, err = env.Stdout.Write(b)
		return err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, b, "", "  "); err != nil {
		return fmt.Errorf("print as JSON: %w", err)
	}
	_, err = fmt.Fprintln(env.Stdout, indented.String())
	return err
}

// Section is one of several tables on a screen. Fill is given an empty table.
type Section struct {
	Title string
	Fill  func(*Table)
}

// PrintSections prints a resource as JSON or YAML, or as several tables with an empty line between them.
func (env *Env) PrintSections(resource any, sections ...Section) error {
	if env.Output != OutputTable {
		return env.Print(resource, nil)
	}
	for i, s := range sections {
		if i > 0 {
			fmt.Fprintln(env.Stdout)
		}
		if s.Title != "" {
			fmt.Fprintln(env.Stdout, Printable(s.Title))
		}
		if err := env.Print(resource, s.Fill); err != nil {
			return err
		}
	}
	return nil
}

// PrintOne prints one resource of a stream: a line of JSON, a YAML document, or a line of text.
func (env *Env) PrintOne(resource any, line func() string) error {
	if env.Output == OutputTable {
		_, err := fmt.Fprintln(env.Stdout, line())
		return err
	}
	b, err := document(resource)
	if err != nil {
		return err
	}
	if env.Output == OutputYAML {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return fmt.Errorf("print as YAML: %w", err)
		}
		_, err = fmt.Fprintf(env.Stdout, "---\n%s", b)
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "%s\n", b)
	return err
}

// document returns a resource as compact JSON. Equal resources have equal bytes.
func document(resource any) ([]byte, error) {
	m, ok := resource.(proto.Message)
	if !ok {
		b, err := json.Marshal(resource)
		if err != nil {
			return nil, fmt.Errorf("print as JSON: %w", err)
		}
		return b, nil
	}
	b, err := encode(m)
	if err != nil {
		return nil, fmt.Errorf("print as JSON: %w", err)
	}
	return b, nil
}
