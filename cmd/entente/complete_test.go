package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/cmd/entente/cli"
)

// completed returns what the shell would offer at the end of a command line, and the directive.
func completed(t *testing.T, args ...string) (values []string, directive string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := &cli.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
		Getenv: func(string) string { return "" }}
	args = append([]string{"__complete"}, args...)
	require.Zero(t, env.Run(t.Context(), rootCommand(env), args), "%s", errs.String())
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	directive, ok := strings.CutPrefix(errs.String(), "Completion ended with directive: ")
	require.True(t, ok, "%s", errs.String())
	return lines[:len(lines)-1], strings.TrimSpace(directive)
}

// free are the arguments and flags whose values nobody knows before.
var free = []string{
	"--action", "--actor", "--object", "--since", "--until", "--recipient", "--outbound",
	"domain create", "federation accept", "federation create", "service import",
	"--advertise", "--as", "--audience", "--cluster", "--diff", "--dns", "--endpoint-host", "--endpoint-spiffe-id",
	"--egress-proxy", "--etag", "--for",
	"--for-home", "--home", "--hub-exclude", "--hub-include", "--hub-url", "--identity", "--issuer", "--key-prefix",
	"--mount", "--node-id", "--oidc-issuer", "--path", "--peer-address", "--peer-domain", "--transit-mount", "--url",
	"--what-if", "--metrics-listen", "--hint", "--selector", "--parent-selector", "--id",
	"entry create --spiffe-id", "entry list --spiffe-id", "entry update --spiffe-id",
	"service register --spiffe-id", "svid x509 --spiffe-id",
	"svid jwt --spiffe-id",
	"sync --exec",
}

// TestCompletionOfAll: every argument and every flag with a value has values, or files, or is known to be free.
func TestCompletionOfAll(t *testing.T) {
	socket := longMember(t)
	leaves(newRoot(), func(path string, cmd *cobra.Command) {
		path = strings.TrimPrefix(path, "entente ")
		offers := func(flag ...string) bool {
			line := slices.Concat([]string{"--socket", socket}, strings.Fields(path), flag)
			if slices.Contains(flag, "--endpoint") || slices.Contains(flag, "--lease") {
				line = slices.Concat([]string{"--socket", socket}, strings.Fields(path), []string{"web"}, flag)
			}
			values, directive := completed(t, append(line, "")...)
			return len(values) > 0 || directive != "ShellCompDirectiveNoFileComp"
		}
		t.Run(path, func(t *testing.T) {
			_, names, _ := strings.Cut(cmd.Use, " ")
			if names = strings.Trim(names, "[]"); names != "" && !strings.HasPrefix(names, "-") {
				require.Equal(t, !slices.Contains(free, path), offers(), "values of the argument %s", names)
			}
			cmd.Flags().VisitAll(func(f *pflag.Flag) {
				numbers := []string{"duration", "uint32", "uint64", "int32"}
				if f.NoOptDefVal != "" || slices.Contains(numbers, f.Value.Type()) {
					return
				}
				flag := "--" + f.Name
				known := !slices.Contains(free, flag) && !slices.Contains(free, path+" "+flag)
				require.Equal(t, known, offers(flag), "values of the flag %s", flag)
			})
		})
	})
}

// TestCompletionWithoutMember: there are no values, no message, and no files of the current folder.
func TestCompletionWithoutMember(t *testing.T) {
	values, directive := completed(t, "--socket", "/nowhere/admin.sock", "domain", "show", "")
	require.Empty(t, values)
	require.Equal(t, "ShellCompDirectiveNoFileComp", directive)
}
