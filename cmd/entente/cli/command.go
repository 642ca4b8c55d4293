package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// suggestionDistance is the largest edit distance at which a command is suggested; cobra's own choice.
const suggestionDistance = 2

// Group returns a noun: a command that has others and does nothing itself.
func Group(noun, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: noun, Short: short, Args: NoSuchCommand, RunE: ShowHelp}
	cmd.SuggestionsMinimumDistance = suggestionDistance
	cmd.AddCommand(verbs...)
	return cmd
}

// ShowHelp is the RunE of a command that has only others.
func ShowHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// NoSuchCommand rejects arguments of a command that has only others.
func NoSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := "there is no command '" + cmd.CommandPath() + " " + args[0] + "'"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		message += ", the nearest is '" + cmd.CommandPath() + " " + near[0] + "'"
	}
	return &usageError{message}
}

// Arguments accepts exactly the named arguments. A name in brackets can be left out. DOMAIN must be a bare trust
// domain.
func Arguments(names ...string) cobra.PositionalArgs {
	least := 0
	for _, n := range names {
		if !strings.HasPrefix(n, "[") {
			least++
		}
	}
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return Usagef("%s is missing", names[len(args)])
		case len(args) > len(names) && len(names) == 0:
			return Usagef("unexpected argument %q: '%s' takes none", args[0], cmd.CommandPath())
		case len(args) > len(names):
			return Usagef(
				"unexpected argument %q: '%s' takes %s", args[len(names)], cmd.CommandPath(), strings.Join(names, " "),
			)
		}
		for i, arg := range args {
			if names[i] == "DOMAIN" || names[i] == "[DOMAIN]" {
				if err := BareDomain("DOMAIN", arg); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// BareDomain rejects a trust domain that is written as a SPIFFE ID or a URL. what is the flag or argument.
func BareDomain(what, name string) error {
	_, rest, found := strings.Cut(name, "://")
	if !found {
		return nil
	}
	domain, _, _ := strings.Cut(rest, "/")
	if domain == "" {
		domain = "us.example.org"
	}
	return Usagef("%s %q has a scheme: write the name of the trust domain alone, such as %s", what, name, domain)
}

// Optional returns the only argument, or "" if it was left out.
func Optional(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
