package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/reflect/protoreflect"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/enumname"
)

// Required returns a PreRunE that rejects a command line without flags that have no default, before any call.
func Required(names ...string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		for _, n := range names {
			if !cmd.Flags().Changed(n) {
				return Usagef("--%s is missing", n)
			}
		}
		return nil
	}
}

// flagError rewords errors of pflag. The flags of a verb that does not exist are unknown too, so the verb is reported.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && cmd.HasSubCommands() && cmd.Flags().NArg() > 0 {
		return NoSuchCommand(cmd, cmd.Flags().Args())
	}
	if unknown != nil {
		_, form, _ := strings.Cut(cmd.UseLine(), cmd.CommandPath())
		return Usagef("%v; write '%s%s'", unknown, cmd.CommandPath(), strings.TrimSuffix(form, " [flags]"))
	}
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return &usageError{err.Error()}
	}
	flag := invalid.GetFlag()
	switch flag.Value.Type() {
	case "duration":
		return Usagef(
			"--%s %q is not a duration: write a number with a unit, such as 10s", flag.Name, invalid.GetValue(),
		)
	case "uint32":
		return Usagef(
			"--%s %q is not a count: write a whole number, such as %s", flag.Name, invalid.GetValue(), flag.DefValue,
		)
	}
	return &usageError{err.Error()}
}

// FlagValues makes the shell complete a flag with these values.
func FlagValues(cmd *cobra.Command, flag string, values ...string) {
	// It fails only for a flag that does not exist or has values already.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// EnumFlag is a flag with the value of a protobuf enumeration, as people write it.
type EnumFlag struct {
	Of     protoreflect.EnumDescriptor
	Number protoreflect.EnumNumber
}

// Set implements pflag.Value.
func (e *EnumFlag) Set(s string) error {
	n, known, ok := EnumValue(e.Of, s)
	if !ok {
		return fmt.Errorf("there are %s", strings.Join(known, ", "))
	}
	e.Number = n
	return nil
}

// String implements pflag.Value.
func (e *EnumFlag) String() string {
	if e.Of == nil || e.Number == 0 {
		return ""
	}
	return enumname.Name(e.Of, e.Number)
}

// Type implements pflag.Value.
func (e *EnumFlag) Type() string { return strings.ToUpper(string(e.Of.Name())) }

// LocalityFlag is a flag with a locality: REGION[/ZONE[/SUB-ZONE]]. Value is nil until it is set.
type LocalityFlag struct{ Value *ententev1.Locality }

// Set implements pflag.Value.
func (l *LocalityFlag) Set(s string) error {
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
	l.Value = &ententev1.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
	return nil
}

// String implements pflag.Value.
func (l *LocalityFlag) String() string { return Locality(l.Value) }

// Type implements pflag.Value.
func (l *LocalityFlag) Type() string { return "LOCALITY" }
