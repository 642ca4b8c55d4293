package federation

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

var (
	bootstrapInput = cli.Input{
		Name:   "--bootstrap",
		Remedy: "name the peer's SPIFFE bundle document, as 'entente bundle show --format spiffe' prints it there",
	}
	servingInput = cli.Input{
		Name:   "--serving-bundle",
		Remedy: "name the SPIFFE bundle document of the endpoint's trust domain",
	}
	webRootsInput = cli.Input{
		Name: "--web-roots", Remedy: "name a file of PEM certificates, or leave it out for the system's roots",
	}
)

// jwtStaleDefault is the default of the server, for the help.
const jwtStaleDefault = 7 * 24 * time.Hour

// field is one flag of 'create' and 'update' with the field of a relationship that it sets.
type field struct {
	flag string
	// set writes the value of the flag into a relationship, and returns the paths for an update mask.
	set func(to *ententev1.Relationship) (paths []string, err error)
}

// fields are the flags of one command line, in the order in which they are applied.
type fields struct {
	env   *cli.Env
	flags *pflag.FlagSet
	list  []field
	// bootstrapFile is not a field of the relationship.
	bootstrapFile string
}

// addFields adds the flags to a command.
func addFields(env *cli.Env, cmd *cobra.Command) *fields {
	f := &fields{env: env, flags: cmd.Flags()}
	f.flags.StringVar(&f.bootstrapFile, "bootstrap", "",
		"the first SPIFFE bundle document, from a trusted source ('-' for standard input)")
	f.addEndpoint()
	f.addLimits()
	f.addPeer()
	f.addHub()
	return f
}

func (f *fields) add(flag string, set func(to *ententev1.Relationship) ([]string, error)) {
	f.list = append(f.list, field{flag, set})
}

// addValue adds a field whose path needs no thought.
func (f *fields) addValue(flag, path string, set func(to *ententev1.Relationship)) {
	f.add(flag, func(to *ententev1.Relationship) ([]string, error) {
		set(to)
		return []string{path}, nil
	})
}

// addFile adds a field with the content of a file. An empty name is an empty field.
func (f *fields) addFile(flag, path string, input cli.Input, name *string, set func(*ententev1.Relationship, []byte)) {
	f.add(flag, func(to *ententev1.Relationship) ([]string, error) {
		if *name == "" {
			return []string{path}, nil
		}
		content, err := f.env.ReadFile(input, *name)
		set(to, content)
		return []string{path}, err
	})
}

// given reports whether any of the flags is given.
func (f *fields) given() bool {
	for _, x := range f.list {
		if f.flags.Changed(x.flag) {
			return true
		}
	}
	return f.flags.Changed("bootstrap")
}

// apply sets the fields of the given flags. It returns the paths for an update mask, and the bootstrap bundle.
func (f *fields) apply(to *ententev1.Relationship) (paths []string, bootstrap []byte, err error) {
	for _, x := range f.list {
		if !f.flags.Changed(x.flag) {
			continue
		}
		set, err := x.set(to)
		if err != nil {
			return nil, nil, err
		}
		paths = append(paths, set...)
	}
	if f.flags.Changed("bootstrap") {
		bootstrap, err = f.env.ReadFile(bootstrapInput, f.bootstrapFile)
	}
	return paths, bootstrap, err
}

// addEndpoint adds the flags for the bundle endpoint.
func (f *fields) addEndpoint() {
	urls := f.flags.StringArray("url", nil,
		"where the bundle is served: https://HOST[:PORT]/PATH; can be repeated, and is tried in order")
	f.add("url", func(to *ententev1.Relationship) ([]string, error) {
		to.Url, to.FallbackUrls = (*urls)[0], (*urls)[1:]
		return []string{"url", "fallback_urls"}, nil
	})

	profile := &cli.EnumFlag{Of: ententev1.EndpointProfile(0).Descriptor()}
	f.flags.Var(profile, "profile", "how the endpoint authenticates: https_spiffe or https_web")
	f.addValue("profile", "profile", func(to *ententev1.Relationship) {
		to.Profile = ententev1.EndpointProfile(profile.Number)
	})

	id := f.flags.String("endpoint-spiffe-id", "", "https_spiffe: the SPIFFE ID of the endpoint")
	f.addValue("endpoint-spiffe-id", "endpoint_spiffe_id", func(to *ententev1.Relationship) {
		to.EndpointSpiffeId = *id
	})

	serving := f.flags.String("serving-bundle", "",
		"https_spiffe, if --endpoint-spiffe-id is in another domain: the SPIFFE bundle document of that domain "+
			"(default: its bundle in this cluster; '' restores the default)")
	f.addFile("serving-bundle", "serving_bundle", servingInput, serving, func(to *ententev1.Relationship, b []byte) {
		to.ServingBundle = b
	})

	roots := f.flags.String("web-roots", "",
		"https_web: PEM certificates that are the only accepted roots (default, and '': the system's)")
	f.addFile("web-roots", "web_roots", webRootsInput, roots, func(to *ententev1.Relationship, b []byte) {
		to.WebRoots = b
	})
}

// addLimits adds the flags for what is accepted, and for how long.
func (f *fields) addLimits() {
	kinds := f.flags.String("authority-kinds", "", "which authorities are accepted: x509, jwt or both (default: both)")
	f.add("authority-kinds", func(to *ententev1.Relationship) ([]string, error) {
		switch *kinds {
		case "x509":
			to.AuthorityKinds = []ententev1.AuthorityKind{ententev1.AuthorityKind_AUTHORITY_KIND_X509}
		case "jwt":
			to.AuthorityKinds = []ententev1.AuthorityKind{ententev1.AuthorityKind_AUTHORITY_KIND_JWT}
		case "both":
		default:
			return nil, cli.Usagef("--authority-kinds %q is not one of x509, jwt, both", *kinds)
		}
		return []string{"authority_kinds"}, nil
	})

	size := f.flags.Uint32("max-document-bytes", 0, "maximum size of the document (default: 1 MiB)")
	f.addValue("max-document-bytes", "max_document_bytes", func(to *ententev1.Relationship) {
		to.MaxDocumentBytes = *size
	})

	timeout := f.flags.Duration("fetch-timeout", 0, "how long a fetch from one endpoint may take (default: 30s)")
	f.addValue("fetch-timeout", "fetch_timeout", func(to *ententev1.Relationship) {
		if *timeout != 0 {
			to.FetchTimeout = durationpb.New(*timeout)
		}
	})

	jwt := f.flags.Duration("max-stale-jwt", 0,
		fmt.Sprintf("how long without refresh until its JWT keys count as expired (default: %s)", jwtStaleDefault))
	f.addValue("max-stale-jwt", "max_stale_jwt", func(to *ententev1.Relationship) {
		to.MaxStaleJwt = durationpb.New(*jwt)
	})

	x509 := f.flags.Duration("max-stale-x509", 0,
		"how long without refresh until its X.509 authorities count as expired (default: never)")
	f.addValue("max-stale-x509", "max_stale_x509", func(to *ententev1.Relationship) {
		to.MaxStaleX509 = durationpb.New(*x509)
	})
}

// addPeer adds the flags for the stream to another Entente cluster.
func (f *fields) addPeer() {
	home := f.flags.String("peer-domain", "",
		"if an Entente cluster hosts the domain: its home trust domain, with which a stream is kept ('' ends it)")
	addresses := f.flags.StringArray("peer-address", nil,
		"HOST:PORT of the cluster port of a member there; can be repeated "+
			"(default: none, only that cluster opens the stream)")
	f.add("peer-domain", func(to *ententev1.Relationship) ([]string, error) {
		if *home != "" {
			to.Peer = &ententev1.Peer{HomeTrustDomain: *home, Addresses: *addresses}
		}
		return []string{"peer"}, nil
	})
	f.add("peer-address", func(to *ententev1.Relationship) ([]string, error) {
		if f.flags.Changed("peer-domain") {
			return nil, nil // part of the peer
		}
		to.Peer = &ententev1.Peer{Addresses: *addresses}
		return []string{"peer.addresses"}, nil
	})
}

// addHub adds the flags for hubs.
func (f *fields) addHub() {
	attest := f.flags.Bool("attest", false,
		"attest the domain as a hub: its bundle is in the bundle map that this cluster serves")
	f.addValue("attest", "attest", func(to *ententev1.Relationship) { to.Attest = *attest })
	include := f.flags.StringArray("hub-include", nil,
		"the domain's cluster is a hub: a trust domain whose attestation "+
			"by it "+
			"is accepted, or all below a name such as .example.org; can be repeated ('' ends that)")
	exclude := f.flags.StringArray("hub-exclude", nil,
		"a trust domain, or all below a name, whose attestation by the hub is not accepted; can be repeated ('' "+
			"for none)")
	url := f.flags.String("hub-url", "", "where the hub serves its bundle map (default: /bundles at the host of --url)")
	none := func(list []string) bool { return len(list) == 1 && list[0] == "" }
	noHub := func() bool { return f.flags.Changed("hub-include") && none(*include) }
	hub := func(flag, path string, set func(*ententev1.Hub)) {
		f.add(flag, func(to *ententev1.Relationship) ([]string, error) {
			if noHub() { // which the field as a whole expresses
				return nil, nil
			}
			if to.Hub == nil {
				to.Hub = &ententev1.Hub{}
			}
			set(to.Hub)
			return []string{path}, nil
		})
	}
	hub("hub-include", "hub.include", func(h *ententev1.Hub) { h.Include = *include })
	hub("hub-exclude", "hub.exclude", func(h *ententev1.Hub) {
		if !none(*exclude) {
			h.Exclude = *exclude
		}
	})
	hub("hub-url", "hub.url", func(h *ententev1.Hub) { h.Url = *url })
	f.add("hub-include", func(*ententev1.Relationship) ([]string, error) {
		if noHub() {
			return []string{"hub"}, nil
		}
		return nil, nil
	})
}
