package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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

// flagError words what pflag says of a flag. After a verb that does not exist its flags cannot be known either, so it is the
// verb that is told of.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && cmd.HasSubCommands() && cmd.Flags().NArg() > 0 {
		return noSuchCommand(cmd, cmd.Flags().Args())
	}
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return &usageError{err.Error()}
	}
	flag := invalid.GetFlag()
	switch flag.Value.Type() {
	case "duration":
		return usagef("--%s %q is no duration: write a number with a unit, such as 10s", flag.Name, invalid.GetValue())
	case "uint32":
		return usagef("--%s %q is no count: write a whole number, such as %s", flag.Name, invalid.GetValue(), flag.DefValue)
	}
	return &usageError{err.Error()}
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
