package federation

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

func createCommand(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create DOMAIN --url URL --profile https_spiffe|https_web | --static",
		Short: "Trust a foreign domain",
		Long: `Trust a foreign domain: its bundle is fetched from --url now and from then on.

With the profile https_spiffe the endpoint must present --endpoint-spiffe-id. If that ID is in the foreign domain
itself, --bootstrap is the bundle that verifies it the first time: get it from the operators of the domain by a way
that you trust ('entente bundle show --format spiffe' there), not from the endpoint.

With the profile https_web the endpoint has a certificate of the web, or of --web-roots.

A partner without an endpoint can be federated too. With --url file:///NAME the bundle is a file below the folder
federation.bundle_dir of the members, each of which must have it, and is read as an endpoint is fetched. With --static
it is the one in --bootstrap, a SPIFFE bundle document or PEM certificates: it is never stale, and changes by
'entente federation update --bootstrap' alone. Neither has a profile.

If an Entente cluster hosts the domain, --peer-domain is the home trust domain of that cluster, and --peer-address
are the cluster ports of its members. Once both clusters have a relationship that names the other one, a stream
carries every change of a bundle at once, both ways; one side with an address is enough. The URL is used while there
is no stream.

A cluster can be a hub: with --attest it attests the domain, whose bundle is then in the bundle map that it serves. If
the other cluster is the hub, --hub-include names the trust domains whose attestation is accepted. An attestation counts
only if this cluster has no relationship with the domain itself, and is not passed on.`,
		Example: `  entente federation create us.example.org \
      --url https://us-1.example.org:7443/ --profile https_spiffe \
      --endpoint-spiffe-id spiffe://us.example.org/entente/bundle-endpoint --bootstrap us.json \
      --peer-domain us.example.org --peer-address us-1.example.org:7440 --peer-address us-2.example.org:7440`,
		Args: cli.Arguments("DOMAIN"),
	}
	given := addFields(env, cmd)
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		switch url := cmd.Flags().Lookup("url").Value.String(); {
		case cmd.Flags().Changed("static"):
			return cli.Required("bootstrap")(cmd, args)
		case strings.HasPrefix(url, "[file:"):
			return nil
		}
		return cli.Required("url", "profile")(cmd, args)
	}
	var tolerant cli.IfNotExists
	tolerant.Add(cmd)
	cmd.RunE = env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
		wanted := &ententev1.Relationship{TrustDomain: args[0]}
		fields, bootstrap, err := given.apply(wanted)
		if err != nil {
			return err
		}
		made, err := member.Federation().CreateRelationship(ctx, &ententev1.CreateRelationshipRequest{
			Relationship: wanted, BootstrapBundle: bootstrap,
		})
		return printRelationship(env)(
			cli.Existing(tolerant, wanted, made, err, fields, func() (*ententev1.Relationship, error) {
				return member.Federation().GetRelationship(ctx, &ententev1.GetRelationshipRequest{TrustDomain: args[0]})
			}))
	})
	return cmd
}

func updateCommand(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "update DOMAIN",
		Short: "Change a relationship: only the given settings",
		Long: `Change a relationship: only the given settings. The stored bundle stays, and counts until another
one is fetched under the new settings. --url replaces the whole list of endpoints. A change from https_spiffe to
https_web needs --endpoint-spiffe-id '', and a change from https_web to https_spiffe needs --web-roots ''.
--hub-include, --hub-exclude and --hub-url each replace their previous value; a domain that is no longer taken from a
hub is no longer trusted at once.

A rebuilt cluster restarts its sequence, which is rejected. Once its operators have confirmed the rebuild,
--bootstrap FILE --reset-sequence accepts it again with the bundle in FILE.`,
		Example: `  entente federation update us.example.org --url https://us-2.example.org:7443/
  entente federation update us.example.org --bootstrap us.json --reset-sequence`,
		Args: cli.Arguments("DOMAIN"),
	}
	given := addFields(env, cmd)
	etag := cli.Etag(cmd)
	reset := cmd.Flags().Bool("reset-sequence", false, "accept a lower sequence than the last: the domain was rebuilt")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case *reset && !cmd.Flags().Changed("bootstrap"):
			return cli.Usagef("--reset-sequence needs --bootstrap: name the first bundle of the rebuilt domain")
		case !given.given():
			return cli.Usagef("nothing to change: give at least one flag")
		}
		return nil
	}
	cmd.RunE = env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) (err error) {
		request := &ententev1.UpdateRelationshipRequest{
			Relationship: &ententev1.Relationship{TrustDomain: args[0]}, UpdateMask: &fieldmaskpb.FieldMask{},
			ResetSequence: *reset, Etag: *etag,
		}
		request.UpdateMask.Paths, request.BootstrapBundle, err = given.apply(request.GetRelationship())
		if err != nil {
			return err
		}
		return printRelationship(env)(member.Federation().UpdateRelationship(ctx, request))
	})
	return cmd
}
