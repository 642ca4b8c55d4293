package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// required is a cobra PreRunE that refuses a command line without flags that have no default, before anybody is asked.
func required(names ...string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		for _, n := range names {
			if !cmd.Flags().Changed(n) {
				return usagef("--%s is missing", n)
			}
		}
		return nil
	}
}

// enumFlag is a flag with the value of a protobuf enumeration, as people write it.
type enumFlag struct {
	of     protoreflect.EnumDescriptor
	number protoreflect.EnumNumber
}

// Set implements pflag.Value.
func (e *enumFlag) Set(s string) error {
	n, known, ok := valueNamed(e.of, s)
	if !ok {
		return fmt.Errorf("there are %s", strings.Join(known, ", "))
	}
	e.number = n
	return nil
}

// String implements pflag.Value.
func (e *enumFlag) String() string {
	if e.of == nil || e.number == 0 {
		return ""
	}
	return valueName(e.of, e.number)
}

// Type implements pflag.Value.
func (e *enumFlag) Type() string { return strings.ToUpper(string(e.of.Name())) }

// localityFlag is a flag with a locality: REGION[/ZONE[/SUB-ZONE]].
type localityFlag struct{ locality *ententev1.Locality }

// Set implements pflag.Value.
func (l *localityFlag) Set(s string) error {
	const levels = 3
	parts := strings.Split(s, "/")
	if len(parts) > levels {
		return errors.New("it has more than region, zone and sub-zone")
	}
	for _, p := range parts {
		if p == "" {
			return errors.New("it has an empty part; write REGION[/ZONE[/SUB-ZONE]]")
		}
	}
	parts = append(parts, "", "")
	l.locality = &ententev1.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
	return nil
}

// String implements pflag.Value.
func (l *localityFlag) String() string { return place(l.locality) }

// Type implements pflag.Value.
func (l *localityFlag) Type() string { return "LOCALITY" }

// place is a locality as people write it.
func place(l *ententev1.Locality) string {
	return strings.TrimRight(strings.Join([]string{l.GetRegion(), l.GetZone(), l.GetSubZone()}, "/"), "/")
}
