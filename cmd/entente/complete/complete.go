// Package complete has the completion of the shell: the values of arguments and flags.
//
// [Add] gives every command below the root a completion for each argument and each flag with a value. What a cluster
// has, such as domains and members, is read from the member that the flags and the environment name, in its own state
// and within a short time; if that fails there are no values, and no message. Files are those of the right ending.
package complete

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/internal/enumname"
)

// limit is how long the shell waits for values.
const limit = 2 * time.Second

// source returns the values of an argument or a flag.
type source func(env *cli.Env) cobra.CompletionFunc

// fromMember returns what list reads from the member. args are those before the one that is completed.
func fromMember(
	list func(ctx context.Context, member *cli.Member, args []string) ([]cobra.Completion, error),
) source {
	return func(env *cli.Env) cobra.CompletionFunc {
		return func(cmd *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			var all []cobra.Completion
			err := env.Quietly(cmd, func(member *cli.Member) (err error) {
				all, err = list(ctx, member, args)
				return err
			})
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return beginning(all, begin), cobra.ShellCompDirectiveNoFileComp
		}
	}
}

// beginning returns the values that begin with a text, each once and in order. Values that a terminal would interpret
// are left out.
func beginning(all []cobra.Completion, begin string) (out []cobra.Completion) {
	for _, c := range all {
		value, _, _ := strings.Cut(c, "\t")
		if value != "" && strings.HasPrefix(value, begin) && cli.Printable(value) == value {
			out = append(out, c)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// described returns a value with its description.
func described(value string, words ...string) cobra.Completion {
	words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
	if len(words) == 0 {
		return value
	}
	return cobra.CompletionWithDesc(value, cli.Printable(strings.Join(words, ", ")))
}

// fixed returns the values of a list.
func fixed(values ...string) source {
	return func(*cli.Env) cobra.CompletionFunc {
		return func(_ *cobra.Command, _ []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return beginning(slices.Clone(values), begin), cobra.ShellCompDirectiveNoFileComp
		}
	}
}

// none has no values: the shell shall not offer files.
var none = fixed()

// files returns the files with one of the endings; without any ending, all files.
func files(endings ...string) source {
	return func(*cli.Env) cobra.CompletionFunc {
		return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(endings) == 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return endings, cobra.ShellCompDirectiveFilterFileExt
		}
	}
}

// folders returns folders.
func folders(*cli.Env) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
}

var roles = fixed(enumname.All(ententev1.Role(0).Descriptor())...)

// arguments are the sources of arguments, by command. A command that is not here has no argument.
var arguments = map[string]source{
	"agent token": none, "agent token revoke": agentTokens,
	"agent show": agents, "agent evict": agents, "agent ban": agents,
	"entry show": entries, "entry update": entries, "entry delete": entries,
	"access grant": roles, "access revoke": roles, "access show": roles, "access release": reservedServices,
	"federation invitations": invitations,
	"audit verify":           files("log", "end"),
	"authority activate":     authorities, "authority revoke": authorities, "authority taint": authorities,
	"authority show": authoritiesAndAnchors, "authority approve": pendingAnchors,
	"authority anchors": domains, "authority list": domains, "authority prepare": domains, "authority rotate": domains,
	"bundle history": bundles, "bundle show": bundles, "bundle watch": bundles, "bundle verify": files("json", "pem"),
	"cluster approve": joiners, "cluster join-token": none, "cluster join-token revoke": tokens,
	"cluster remove": members, "cluster repair": members, "cluster transfer": members,
	"cluster snapshot inspect": files("snap", "snapshot", "age"),
	"cluster snapshot restore": files("snap", "snapshot", "age"),
	"cluster snapshot save":    files(),
	"debug bundle":             files("tar.gz"),
	"debug profile":            fixed("allocs", "block", "cpu", "goroutine", "heap", "mutex", "threadcreate", "trace"),
	"domain create":            none, "domain delete": domains, "domain show": domains, "domain update": domains,
	"federation accept": none, "federation create": none,
	"federation approve": relationships, "federation delete": relationships, "federation refresh": relationships,
	"federation resume": relationships, "federation show": relationships, "federation suspend": relationships,
	"federation update": relationships,
	"hint":              services,
	"rule delete":       rules, "rule show": rules, "rule put": files("hcl", "json"),
	"service deregister": services, "service evict": services, "service export": services, "service import": none,
	"service register": services, "service show": services, "service unexport": exports, "service unimport": imports,
	"validate": files("hcl"),
}

// flags are the sources of flags by name, or by command and name where the same name means different things. A flag
// that is not here, and that has no enumeration, has no values.
var flags = map[string]source{
	"address": memberAddresses, "server": memberAddresses, "socket": files("sock"),
	"cert": files("pem"), "key": files("key", "pem"), "bundle": files("pem"), "config": files("hcl"),
	"bootstrap": files("json", "pem"), "serving-bundle": files("json", "pem"), "web-roots": files("pem", "crt"),
	"statements": files("json"), "dir": folders, "listen": files("sock"), "relay": files("sock"),
	"agent": agents, "agent-socket": files("sock"), "workload-socket": files("sock"), "token-file": files(),
	"svid x509 --agent": files("sock"), "xds bootstrap --agent": files("sock"),
	"data-dir": folders, "log-level": fixed("trace", "debug", "info", "warn", "error"), "federates-with": bundles,
	"domain": domains, "bundle verify --domain": bundles, "against": bundles,
	"to": relationships, "from": relationships,
	"locality": localities, "service": services, "endpoint": endpoints, "lease": leases, "may-issue": roles,
	"access grant --spiffe-id": callers, "access revoke --spiffe-id": callers, "access show --spiffe-id": callers,
	"anchor":                anchors,
	"vault policy --member": members, "federation invitations --revoke": invitations,
}

// Add adds the completions to all commands below root.
func Add(env *cli.Env, root *cobra.Command) {
	register(env, root, root.PersistentFlags(), "")
	each(root, func(path string, cmd *cobra.Command) {
		cmd.ValidArgsFunction = argument(env, path)
		register(env, cmd, cmd.LocalNonPersistentFlags(), path)
	})
}

// each calls f with every command below cmd, and its path without the name of the binary.
func each(cmd *cobra.Command, f func(path string, cmd *cobra.Command)) {
	for _, c := range cmd.Commands() {
		_, path, _ := strings.Cut(c.CommandPath(), " ")
		f(path, c)
		each(c, f)
	}
}

// argument returns the completion of the first argument of a command, or of all of 'audit verify'.
func argument(env *cli.Env, path string) cobra.CompletionFunc {
	list, ok := arguments[path]
	if !ok {
		list = none
	}
	first := list(env)
	return func(cmd *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 && path != "audit verify" {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return first(cmd, args, begin)
	}
}

// register adds the completions of flags to a command. One that the command has itself stays.
func register(env *cli.Env, cmd *cobra.Command, of *pflag.FlagSet, path string) {
	of.VisitAll(func(f *pflag.Flag) {
		if f.NoOptDefVal != "" { // a flag that needs no value
			return
		}
		if _, has := cmd.GetFlagCompletionFunc(f.Name); has {
			return
		}
		// It fails only for a flag that does not exist or has a completion.
		_ = cmd.RegisterFlagCompletionFunc(f.Name, sourceOf(path, f)(env))
	})
}

// sourceOf returns the source of a flag.
func sourceOf(path string, f *pflag.Flag) source {
	if list, ok := flags[path+" --"+f.Name]; ok {
		return list
	}
	if enum, ok := f.Value.(*cli.EnumFlag); ok {
		return fixed(enumname.All(enum.Of)...)
	}
	if list, ok := flags[f.Name]; ok {
		return list
	}
	return none
}
