package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ententehq/entente/client"
)

// IfExists adds --if-exists to a command that ends something: it then succeeds where there is nothing to end.
func (env *Env) IfExists(cmd *cobra.Command) *cobra.Command {
	tolerant := cmd.Flags().Bool("if-exists", false, "succeed if it does not exist")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		if *tolerant && errors.Is(err, client.ErrNotFound) {
			fmt.Fprintf(env.Stderr, "Nothing to do: %s\n", Printable(nameFlags(cmd, Sentence(err))))
			return nil
		}
		return err
	}
	return cmd
}

// IfNotExists is the flag --if-not-exists of a command that creates something.
type IfNotExists bool

// Add adds the flag to a command.
func (t *IfNotExists) Add(cmd *cobra.Command) {
	cmd.Flags().BoolVar((*bool)(t), "if-not-exists", false,
		"succeed if it exists with the given settings, and show it")
}

// Existing returns what a command that creates something has instead of a new resource: made and err, unless the flag
// is given and err says that it exists. It is then what get returns, if that has the wanted values in the fields of an
// update mask.
func Existing[M proto.Message](
	t IfNotExists, wanted, made M, err error, fields []string, get func() (M, error),
) (M, error) {
	if !bool(t) || !errors.Is(err, client.ErrAlreadyExists) {
		return made, err
	}
	found, getErr := get()
	switch {
	case errors.Is(getErr, client.ErrNotFound):
		return made, err // it exists as something else
	case getErr != nil:
		return made, getErr
	}
	if d := differing(wanted, found, fields); len(d) > 0 {
		return made, exists{fmt.Sprintf("%s; other than asked for: %s",
			strings.TrimSuffix(Sentence(err), "."), strings.Join(d, ", "))}
	}
	return found, nil
}

// differing returns which of the fields differ. A field of a field is "hub.include".
func differing(a, b proto.Message, fields []string) (out []string) {
	for _, f := range fields {
		if !fieldOf(a, f).Equal(fieldOf(b, f)) {
			out = append(out, f)
		}
	}
	return out
}

func fieldOf(m proto.Message, path string) protoreflect.Value {
	first, rest, nested := strings.Cut(path, ".")
	v := m.ProtoReflect().Get(m.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(first)))
	if nested {
		return fieldOf(v.Message().Interface(), rest)
	}
	return v
}

// exists is an error for a resource that exists otherwise.
type exists struct{ message string }

func (e exists) Error() string { return e.message }

// Is implements the interface that errors.Is uses.
func (exists) Is(target error) bool { return target == client.ErrAlreadyExists }
