package federation

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

var (
	bootstrapInput = cli.Input{
		Name: "--bootstrap", Remedy: "name the peer's SPIFFE bundle document, as 'entente bundle show --format spiffe' prints it there",
	}
	webRootsInput = cli.Input{
		Name: "--web-roots", Remedy: "name a file of PEM certificates, or leave it out for the system's roots",
	}
)

// relationshipFlags are what of a relationship can be set.
type relationshipFlags struct {
	urls                        []string
	endpointID                  string
	servingFile, kinds          string
	maxDocumentBytes            uint32
	fetchTimeout                time.Duration
	profile                     cli.EnumFlag
	bootstrapFile, webRootsFile string
	maxStaleJWT, maxStaleX509   time.Duration
	peerDomain                  string
	peerAddresses               []string
	vouch                       bool
	hubTake, hubExcept          []string
	hubURL                      string
}

func (r *relationshipFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&r.urls, "url", nil, "where its bundle is served: https://HOST[:PORT]/PATH; several are tried in the order given")
	f.StringVar(&r.servingFile, "serving-bundle", "", "https_spiffe, where --endpoint-spiffe-id is in another domain: the SPIFFE bundle document of that domain; without, its bundle as it is known here; '' takes it back")
	f.StringVar(&r.kinds, "authority-kinds", "", "whose authorities are relied on: x509, jwt or both (both if left out)")
	f.Uint32Var(&r.maxDocumentBytes, "max-document-bytes", 0, "the largest document that is read (1 MiB if left out or 0)")
	f.DurationVar(&r.fetchTimeout, "fetch-timeout", 0, "how long a fetch from one endpoint may take (30s if left out or 0)")
	r.profile.Of = ententev1.EndpointProfile(0).Descriptor()
	f.Var(&r.profile, "profile", "how the endpoint proves itself: https_spiffe or https_web")
	f.StringVar(&r.endpointID, "endpoint-spiffe-id", "", "https_spiffe: the SPIFFE ID of the endpoint")
	f.StringVar(&r.bootstrapFile, "bootstrap", "", "a SPIFFE bundle document to begin with, from a trusted source ('-' for standard input)")
	f.StringVar(&r.webRootsFile, "web-roots", "", "https_web: PEM certificates that are the only roots accepted; the system's if left out or ''")
	f.DurationVar(&r.maxStaleJWT, "max-stale-jwt", 0, fmt.Sprintf("without refresh for so long its JWT keys count as expired (%s if left out)", jwtStaleDefault))
	f.StringVar(&r.peerDomain, "peer-domain", "", "where the domain is hosted by a cluster of Entente: its home trust domain; a stream is kept with it ('' ends that)")
	f.StringArrayVar(&r.peerAddresses, "peer-address", nil, "HOST:PORT of the cluster port of a member there, tried in order; without, only that cluster can open the stream")
	f.BoolVar(&r.vouch, "vouch", false, "vouch for the domain as a hub: its bundle stands in the bundle map that this cluster serves")
	f.StringArrayVar(&r.hubTake, "hub-take", nil, "the domain's cluster is a hub: a trust domain that its word is taken on, or all below a name as .example.org ('' ends that)")
	f.StringArrayVar(&r.hubExcept, "hub-except", nil, "a trust domain, or all below a name, on which the hub's word is not taken ('' for none any more)")
	f.StringVar(&r.hubURL, "hub-url", "", "where the hub serves its bundle map (/bundles at the host of --url if left out)")
	f.DurationVar(&r.maxStaleX509, "max-stale-x509", 0, "without refresh for so long its X.509 authorities count as expired (never if left out)")
}

// given reports whether any field is to be set.
func (r *relationshipFlags) given(f *pflag.FlagSet) bool {
	for _, flag := range []string{"url", "profile", "endpoint-spiffe-id", "web-roots", "max-stale-jwt", "max-stale-x509", "serving-bundle", "authority-kinds",
		"max-document-bytes", "fetch-timeout", "peer-domain", "peer-address", "vouch", "hub-take", "hub-except", "hub-url"} {
		if f.Changed(flag) {
			return true
		}
	}
	return false
}

// take puts into the relationship what was given, and returns the names of those fields and the bootstrap bundle.
func (r *relationshipFlags) take(env *cli.Env, f *pflag.FlagSet, to *ententev1.Relationship) (fields []string, bootstrap []byte, err error) {
	if f.Changed("url") {
		to.Url, to.FallbackUrls = r.urls[0], r.urls[1:]
		fields = append(fields, "url", "fallback_urls")
	}
	if f.Changed("profile") {
		to.Profile = ententev1.EndpointProfile(r.profile.Number)
		fields = append(fields, "profile")
	}
	if f.Changed("endpoint-spiffe-id") {
		to.EndpointSpiffeId = r.endpointID
		fields = append(fields, "endpoint_spiffe_id")
	}
	if f.Changed("web-roots") {
		if r.webRootsFile != "" {
			if to.WebRoots, err = env.ReadFile(webRootsInput, r.webRootsFile); err != nil {
				return nil, nil, err
			}
		}
		fields = append(fields, "web_roots")
	}
	if f.Changed("max-stale-jwt") {
		to.MaxStaleJwt = durationpb.New(r.maxStaleJWT)
		fields = append(fields, "max_stale_jwt")
	}
	if f.Changed("max-stale-x509") {
		to.MaxStaleX509 = durationpb.New(r.maxStaleX509)
		fields = append(fields, "max_stale_x509")
	}
	switch {
	case f.Changed("peer-domain") && r.peerDomain == "":
		fields = append(fields, "peer")
	case f.Changed("peer-domain"):
		to.Peer = &ententev1.Peer{HomeTrustDomain: r.peerDomain, Addresses: r.peerAddresses}
		fields = append(fields, "peer")
	case f.Changed("peer-address"):
		to.Peer = &ententev1.Peer{Addresses: r.peerAddresses}
		fields = append(fields, "peer.addresses")
	}
	fields = append(fields, r.takeHub(f, to)...)
	some, err := r.takeLimits(env, f, to)
	if err != nil {
		return nil, nil, err
	}
	fields = append(fields, some...)
	if f.Changed("bootstrap") {
		if bootstrap, err = env.ReadFile(bootstrapInput, r.bootstrapFile); err != nil {
			return nil, nil, err
		}
	}
	return fields, bootstrap, nil
}

// takeHub does so for what hubs are about.
func (r *relationshipFlags) takeHub(f *pflag.FlagSet, to *ententev1.Relationship) (fields []string) {
	if f.Changed("vouch") {
		to.Vouch = r.vouch
		fields = append(fields, "vouch")
	}
	if f.Changed("hub-take") || f.Changed("hub-except") || f.Changed("hub-url") {
		to.Hub = &ententev1.Hub{Take: r.hubTake, Except: r.hubExcept, Url: r.hubURL}
	}
	given := func(list []string) bool { return len(list) != 1 || list[0] != "" }
	if f.Changed("hub-take") {
		if !given(r.hubTake) {
			to.Hub = nil
			return append(fields, "hub")
		}
		fields = append(fields, "hub.take")
	}
	if f.Changed("hub-except") {
		if !given(r.hubExcept) {
			to.Hub.Except = nil
		}
		fields = append(fields, "hub.except")
	}
	if f.Changed("hub-url") {
		fields = append(fields, "hub.url")
	}
	return fields
}

// takeLimits does the same for what narrows a relationship.
func (r *relationshipFlags) takeLimits(env *cli.Env, f *pflag.FlagSet, to *ententev1.Relationship) (fields []string, err error) {
	if f.Changed("serving-bundle") {
		if r.servingFile != "" {
			if to.ServingBundle, err = env.ReadFile(bootstrapInput, r.servingFile); err != nil {
				return nil, err
			}
		}
		fields = append(fields, "serving_bundle")
	}
	if f.Changed("authority-kinds") {
		switch r.kinds {
		case "x509":
			to.AuthorityKinds = []ententev1.AuthorityKind{ententev1.AuthorityKind_AUTHORITY_KIND_X509}
		case "jwt":
			to.AuthorityKinds = []ententev1.AuthorityKind{ententev1.AuthorityKind_AUTHORITY_KIND_JWT}
		case "both":
		default:
			return nil, cli.Usagef("--authority-kinds %q is no choice: there are x509, jwt, both", r.kinds)
		}
		fields = append(fields, "authority_kinds")
	}
	if f.Changed("max-document-bytes") {
		to.MaxDocumentBytes = r.maxDocumentBytes
		fields = append(fields, "max_document_bytes")
	}
	if f.Changed("fetch-timeout") {
		if r.fetchTimeout != 0 {
			to.FetchTimeout = durationpb.New(r.fetchTimeout)
		}
		fields = append(fields, "fetch_timeout")
	}
	return fields, nil
}

func createCommand(env *cli.Env) *cobra.Command {
	var flags relationshipFlags
	cmd := &cobra.Command{
		Use:   "create DOMAIN --url URL --profile https_spiffe|https_web",
		Short: "Begin to trust a foreign domain",
		Long: `Begin to trust a foreign trust domain: its bundle is fetched from --url now and from then on.

With the profile https_spiffe the endpoint proves to be --endpoint-spiffe-id. Where that ID is of the foreign
domain itself, --bootstrap gives the bundle to verify it by the first time: get it from its operators by a way
that you trust ('entente bundle show --format spiffe' there), not from the endpoint.

With the profile https_web the endpoint has a certificate of the web, or of --web-roots.

Where the domain is hosted by a cluster of Entente, --peer-domain names that cluster by its home trust domain, and
--peer-address its members' cluster ports. Once both clusters have a relationship that names the other one, a stream
carries every change of a bundle at once, both ways; one side with an address is enough. The URL stays the way that
is taken while there is no stream.

A cluster can be a hub: with --vouch it vouches for the domain, whose bundle then stands in the bundle map that it serves.
Where the other cluster is the hub, --hub-take says on which trust domains its word is taken. It counts only where this
cluster has no relationship with the domain itself, and no further.`,
		Example: `  entente federation create us.example.org --url https://us-1.example.org:7443/ --profile https_spiffe \
      --endpoint-spiffe-id spiffe://us.example.org/entente/bundle-endpoint --bootstrap us.json \
      --peer-domain us.example.org --peer-address us-1.example.org:7440 --peer-address us-2.example.org:7440`,
		Args:    cli.Arguments("DOMAIN"),
		PreRunE: cli.Required("url", "profile"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, cmd *cobra.Command, args []string) error {
			rel := &ententev1.Relationship{TrustDomain: args[0]}
			_, bootstrap, err := flags.take(env, cmd.Flags(), rel)
			if err != nil {
				return err
			}
			return printRelationship(env)(member.Federation().CreateRelationship(ctx, &ententev1.CreateRelationshipRequest{
				Relationship: rel, BootstrapBundle: bootstrap,
			}))
		}),
	}
	flags.add(cmd.Flags())
	return cmd
}

func updateCommand(env *cli.Env) *cobra.Command {
	var flags relationshipFlags
	var reset bool
	cmd := &cobra.Command{
		Use:   "update DOMAIN",
		Short: "Change a relationship: what is given, and nothing else",
		Long: `Change a relationship: what is given, and nothing else. The bundle that is stored stays, and counts until another one
is fetched under the new settings. --url replaces the whole list of endpoints. From https_spiffe to https_web
takes --endpoint-spiffe-id '' with it, and the other way round takes --web-roots ''. --hub-take, --hub-except and --hub-url
each replace what was given by them before; what came from a hub and is taken no more is trusted no more at once.

A cluster that was rebuilt begins its sequence anew, and is refused for that. Once its operators have confirmed it,
--bootstrap FILE --reset-sequence lets it in again with the bundle in FILE.`,
		Args: cli.Arguments("DOMAIN"),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			anything := cmd.Flags().Changed("bootstrap")
			switch {
			case reset && !anything:
				return cli.Usagef("--reset-sequence goes with --bootstrap: name the bundle that the rebuilt domain begins with")
			case !anything && !flags.given(cmd.Flags()):
				return cli.Usagef("nothing is to be changed: give at least one of the flags")
			}
			return nil
		},
		RunE: env.Call(func(ctx context.Context, member *cli.Member, cmd *cobra.Command, args []string) error {
			rel := &ententev1.Relationship{TrustDomain: args[0]}
			fields, bootstrap, err := flags.take(env, cmd.Flags(), rel)
			if err != nil {
				return err
			}
			return printRelationship(env)(member.Federation().UpdateRelationship(ctx, &ententev1.UpdateRelationshipRequest{
				Relationship: rel, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields}, BootstrapBundle: bootstrap, ResetSequence: reset,
			}))
		}),
	}
	flags.add(cmd.Flags())
	cmd.Flags().BoolVar(&reset, "reset-sequence", false, "forget the sequence that was seen last: the domain was rebuilt")
	return cmd
}
