// Package entry has the commands for registration entries: which workloads have which SPIFFE IDs.
package entry

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("entry", "Registration entries: which workloads have which SPIFFE IDs", createCommand(env),
		listCommand(env), showCommand(env), updateCommand(env), deleteCommand(env))
}

// entryFlags are an entry without its ID.
type entryFlags struct {
	agent, id, hint    string
	parents, selectors []string
	x509TTL, jwtTTL    time.Duration
	dns, federates     []string
	federatesAll       bool
}

func (e *entryFlags) add(f *pflag.FlagSet) {
	f.StringVar(&e.agent, "agent", "", "`NAME` of the agent that attests the workloads")
	f.StringArrayVar(&e.parents, "parent-selector", nil,
		"instead of --agent: every agent with this selector of its attestation; can be repeated")
	f.StringVar(&e.id, "spiffe-id", "", "the SPIFFE `ID`, in a hosted trust domain")
	f.StringArrayVar(&e.selectors, "selector", nil,
		"`TYPE:VALUE` that the workload must have, such as unix:uid:1000; can be repeated, and all must match")
	f.DurationVar(&e.x509TTL, "x509-svid-ttl", 0, "lifetime of X509-SVIDs (default: that of the trust domain)")
	f.DurationVar(&e.jwtTTL, "jwt-svid-ttl", 0, "lifetime of JWT-SVIDs (default: that of the trust domain)")
	f.StringArrayVar(&e.dns, "dns", nil, "DNS `NAME` of the X509-SVIDs; can be repeated")
	f.StringArrayVar(&e.federates, "federates-with", nil,
		"foreign trust `DOMAIN` whose bundle the workload receives; can be repeated")
	f.BoolVar(&e.federatesAll, "federates-with-all", false, "the bundles of all foreign trust domains instead")
	f.StringVar(&e.hint, "hint", "", "text for the workload, to tell several SVIDs apart")
}

// apply sets the fields of the given flags, and returns their names.
func (e *entryFlags) apply(f *pflag.FlagSet, to *ententev1.Entry) (fields []string) {
	for _, x := range []struct {
		flag, field string
		set         func()
	}{
		{"agent", "agent", func() { to.Agent = e.agent }},
		{"parent-selector", "parent_selectors", func() { to.ParentSelectors = e.parents }},
		{"spiffe-id", "spiffe_id", func() { to.SpiffeId = e.id }},
		{"selector", "selectors", func() { to.Selectors = e.selectors }},
		{"x509-svid-ttl", "x509_svid_ttl", func() { to.X509SvidTtl = ttl(e.x509TTL) }},
		{"jwt-svid-ttl", "jwt_svid_ttl", func() { to.JwtSvidTtl = ttl(e.jwtTTL) }},
		{"dns", "dns_names", func() { to.DnsNames = given(e.dns) }},
		{"federates-with", "federates_with", func() { to.FederatesWith = given(e.federates) }},
		{"federates-with-all", "federates_with_all", func() { to.FederatesWithAll = e.federatesAll }},
		{"hint", "hint", func() { to.Hint = e.hint }},
	} {
		if f.Changed(x.flag) {
			x.set()
			fields = append(fields, x.field)
		}
	}
	return fields
}

// ttl returns a lifetime. 0 is that of the trust domain.
func ttl(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// given returns the values of a flag. One empty value is none, with which an update empties the field.
func given(values []string) []string {
	if len(values) == 1 && values[0] == "" {
		return nil
	}
	return values
}

func createCommand(env *cli.Env) *cobra.Command {
	var flags entryFlags
	var id string
	var tolerant cli.IfNotExists
	cmd := &cobra.Command{
		Use:   "create --agent NAME --spiffe-id ID --selector TYPE:VALUE",
		Short: "Give a SPIFFE ID to the workloads with some selectors",
		Long: `Give a SPIFFE ID to the workloads with some selectors, on one node or on several. Agents have it within
a second, and an SVID ready for the workload. It needs the role issuer for the ID, as issuing it does.

Selectors of the Unix attestor: unix:uid, unix:gid, unix:user, unix:group, unix:supplementary_gid,
unix:supplementary_group, unix:path and unix:sha256, the digest of the program. Agents with a kubelet or systemd
have k8s:… and systemd:… too: docs/operating/agent-selectors.md.`,
		Example: `  entente entry create --agent node-1 --spiffe-id spiffe://eu.example.org/web --selector unix:user:web
  entente entry create --parent-selector agent:attestation:join_token --spiffe-id spiffe://eu.example.org/log \
      --selector unix:uid:0 --selector unix:path:/usr/bin/logger --federates-with us.example.org`,
		Args:    cli.Arguments(),
		PreRunE: cli.Required("spiffe-id", "selector"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, cmd *cobra.Command, _ []string) error {
			e := &ententev1.Entry{Id: id}
			fields := flags.apply(cmd.Flags(), e)
			made, err := member.Entries().CreateEntry(ctx, &ententev1.CreateEntryRequest{Entry: e})
			get := func() (*ententev1.Entry, error) {
				return member.Entries().GetEntry(ctx, &ententev1.GetEntryRequest{Id: id})
			}
			return printEntry(env)(cli.Existing(tolerant, e, made, err, fields, get))
		}),
	}
	cmd.Flags().StringVar(&id, "id", "", "the `ID` of the entry (default: a random one)")
	flags.add(cmd.Flags())
	tolerant.Add(cmd)
	return cmd
}

func listCommand(env *cli.Env) *cobra.Command {
	var stale *bool
	var agent, id string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the registration entries",
		Long: `List the registration entries, of one agent or of one SPIFFE ID if that is given. Entries with IDs in
trust domains that the caller may not see are left out.`,
		Example: `  entente entry list
  entente entry list --agent node-1`,
		Args: cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := cli.Read(ctx, env, *stale,
				func(ctx context.Context, o *ententev1.ReadOptions) (*ententev1.ListEntriesResponse, error) {
					all := &ententev1.ListEntriesResponse{}
					for request := (&ententev1.ListEntriesRequest{Read: o, Agent: agent, SpiffeId: id}); ; {
						page, err := member.Entries().ListEntries(ctx, request)
						if err != nil {
							return nil, err
						}
						all.Revision, all.Entries = page.GetRevision(), append(all.Entries, page.GetEntries()...)
						if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
							return all, nil
						}
					}
				})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("ID", "SPIFFE ID", "AGENT", "SELECTORS", "CREATED")
				t.Wrap("SPIFFE ID", "AGENT", "SELECTORS")
				var stopped []string
				for _, e := range list.GetEntries() {
					t.Row(e.GetId(), e.GetSpiffeId(), parent(e), strings.Join(e.GetSelectors(), " "),
						cli.Since(e.GetCreateTime()))
					if e.GetStopped() != "" {
						stopped = append(stopped, e.GetId())
					}
				}
				if len(stopped) > 0 {
					fmt.Fprintf(env.Stderr, "Nothing is issued by %s: 'entente entry show' has the reason.\n",
						strings.Join(stopped, ", "))
				}
				t.Otherwise("There is no such entry: 'entente entry create' makes one.")
			})
		}),
	}
	stale = cli.Stale(cmd)
	cmd.Flags().StringVar(&agent, "agent", "", "only the entries for the agent of this `NAME`")
	cmd.Flags().StringVar(&id, "spiffe-id", "", "only the entries with this SPIFFE `ID`")
	return cmd
}

// parent returns whom an entry is for.
func parent(e *ententev1.Entry) string {
	if e.GetAgent() != "" {
		return e.GetAgent()
	}
	return "with " + strings.Join(e.GetParentSelectors(), " ")
}

func showCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show a registration entry",
		Long: `Show a registration entry with all its settings. Its etag, for changes that must not overwrite others,
is in the JSON.`,
		Example: `  entente entry show web-1`,
		Args:    cli.Arguments("ID"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			return printEntry(env)(member.Entries().GetEntry(ctx, &ententev1.GetEntryRequest{Id: args[0]}))
		}),
	}
}

func updateCommand(env *cli.Env) *cobra.Command {
	var flags entryFlags
	var etag *string
	var confirm bool
	cmd := &cobra.Command{
		Use:   "update ID",
		Short: "Change a registration entry: only the given settings",
		Long: `Change a registration entry: only the given settings. A setting that can be repeated is replaced as a
whole, and is emptied by one empty value. Workloads have new SVIDs within seconds; those issued before stay valid
until they expire.

An entry is issued while who wrote it last may issue its ID. --confirm writes it again as it is, so that it is issued
on the caller's authority from then on.`,
		Example: `  entente entry update web-1 --dns web.example.org --dns www.example.org
  entente entry update web-1 --federates-with ''
  entente entry update web-1 --confirm`,
		Args: cli.Arguments("ID"),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if len(flags.apply(cmd.Flags(), &ententev1.Entry{})) == 0 && !confirm {
				return cli.Usagef("nothing to change: give at least one flag")
			}
			return nil
		},
		RunE: env.Call(func(ctx context.Context, member *cli.Member, cmd *cobra.Command, args []string) error {
			e := &ententev1.Entry{Id: args[0]}
			fields := flags.apply(cmd.Flags(), e)
			if len(fields) == 0 { // the caller confirms what it reads
				was, err := member.Entries().GetEntry(ctx, &ententev1.GetEntryRequest{Id: args[0]})
				if err != nil {
					return err
				}
				e, fields, *etag = was, []string{"spiffe_id"}, cmp.Or(*etag, was.GetEtag())
			}
			return printEntry(env)(member.Entries().UpdateEntry(ctx, &ententev1.UpdateEntryRequest{
				Entry: e, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields}, Etag: *etag,
			}))
		}),
	}
	flags.add(cmd.Flags())
	cmd.Flags().BoolVar(&confirm, "confirm", false, "write the entry as it is, on the authority of the caller")
	etag = cli.Etag(cmd)
	return cmd
}

func deleteCommand(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete ID",
		Short: "Delete a registration entry",
		Long: `Delete a registration entry. Its workloads lose the identity within a second: their streams end unless
another entry is for them. SVIDs that were issued stay valid until they expire.`,
		Example: `  entente entry delete web-1`,
		Args:    cli.Arguments("ID"),
	}
	etag := cli.Etag(cmd)
	cmd.RunE = env.Destroys(cmd).Run(
		func(args []string) string { return "Delete entry " + args[0] },
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return member.Entries().DeleteEntry(ctx, &ententev1.DeleteEntryRequest{
				Id: args[0], Etag: *etag, DryRun: true,
			})
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Entries().DeleteEntry(ctx, &ententev1.DeleteEntryRequest{Id: args[0], Etag: *etag})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) { t.Otherwise("Entry %s is deleted.", args[0]) })
		})
	return env.IfExists(cmd)
}

// printEntry returns a function that prints what a call returned.
func printEntry(env *cli.Env) func(*ententev1.Entry, error) error {
	return func(e *ententev1.Entry, err error) error {
		if err != nil {
			return err
		}
		return env.Print(e, func(t *cli.Table) {
			t.Field("id", e.GetId())
			t.Field("spiffe id", e.GetSpiffeId())
			t.Field("agent", parent(e))
			t.Field("selectors", strings.Join(e.GetSelectors(), " "))
			t.Field("x509-svid ttl", cli.Duration(e.GetX509SvidTtl()))
			t.Field("jwt-svid ttl", cli.Duration(e.GetJwtSvidTtl()))
			t.Field("dns names", strings.Join(e.GetDnsNames(), " "))
			if e.GetFederatesWithAll() {
				t.Field("federates with", "every foreign trust domain")
			}
			t.Field("federates with", strings.Join(e.GetFederatesWith(), " "))
			t.Field("hint", e.GetHint())
			t.Field("created", cli.Time(e.GetCreateTime()))
			t.Field("created by", e.GetCreatedBy())
			if e.GetWrittenBy() != "" && !strings.HasPrefix(e.GetCreatedBy(), e.GetWrittenBy()) {
				t.Field("written by", e.GetWrittenBy())
			}
			t.Field("stopped", e.GetStopped())
			t.Field("revision", e.GetRevision())
		})
	}
}
