package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/cmd/entente/cli"
)

// sentence matches the end of a sentence.
var sentence = regexp.MustCompile(`\.(\s|$)`)

// leaves calls f with every command that does something itself, and its path.
func leaves(cmd *cobra.Command, f func(path string, cmd *cobra.Command)) {
	if !cmd.HasSubCommands() || cmd.HasExample() {
		f(cmd.CommandPath(), cmd)
	}
	for _, c := range cmd.Commands() {
		if c.Name() != "help" && c.Name() != "completion" { // which are cobra's
			leaves(c, f)
		}
	}
}

// newRoot returns a root command of its own, since flags keep their values.
func newRoot() *cobra.Command {
	env := &cli.Env{Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{},
		Getenv: func(string) string { return "" }}
	return rootCommand(env)
}

// TestHelp: every command has two sentences on what it does, and an example. Every line of an example is a call of
// 'entente' whose flags and arguments are accepted, and one of them is of the command itself.
func TestHelp(t *testing.T) {
	leaves(newRoot(), func(path string, cmd *cobra.Command) {
		t.Run(path, func(t *testing.T) {
			require.GreaterOrEqual(t, len(sentence.FindAllString(cmd.Long, -1)), 2, "the help has %q", cmd.Long)
			require.True(t, cmd.HasExample(), "there is no example")
			for _, line := range strings.Split(cmd.Long+"\n"+cmd.UsageString(), "\n") {
				require.LessOrEqual(t, len([]rune(line)), 120, "%s", line)
			}
			own := false
			for _, words := range commands(cmd.Example) {
				require.Equal(t, "entente", words[0], "an example begins with another command")
				called, args, err := newRoot().Find(words[1:])
				require.NoError(t, err)
				require.NoError(t, called.ParseFlags(args), "%q", words)
				args = called.Flags().Args()
				require.NoError(t, called.ValidateArgs(args), "%q", words)
				require.NoError(t, called.ValidateFlagGroups(), "%q", words)
				if called.PreRunE != nil {
					require.NoError(t, called.PreRunE(called, args), "%q", words)
				}
				own = own || called.CommandPath() == path
			}
			require.True(t, own, "no example calls the command")
		})
	})
}

// commands returns the words of each command in an example, without redirections and what follows a pipe.
func commands(example string) (out [][]string) {
	example = strings.ReplaceAll(example, "\\\n", " ")
	for line := range strings.Lines(example) {
		var words []string
		for _, word := range strings.Fields(line) {
			if strings.ContainsAny(word[:1], "|<>#&") {
				break
			}
			words = append(words, strings.Trim(word, "'"))
		}
		if len(words) > 0 {
			out = append(out, words)
		}
	}
	return out
}
