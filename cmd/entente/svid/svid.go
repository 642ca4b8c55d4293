// Package svid has the commands that issue SVIDs.
package svid

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// Command returns the noun.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("svid", "Identities in hosted trust domains", x509Command(env), jwtCommand(env))
}

func x509Command(env *cli.Env) *cobra.Command {
	var id, dir, agent string
	var ttl time.Duration
	var dnsNames []string
	var watch bool
	cmd := &cobra.Command{
		Use:   "x509 --spiffe-id ID --dir DIR | x509 --agent SOCKET --dir DIR",
		Short: "Issue an X509-SVID: writes svid.pem, svid.key and bundle.pem; with --watch keeps them fresh",
		Long: `Issue an X509-SVID for a key that is made here and never leaves this machine.

Writes into --dir, which is made if it does not exist: svid.pem (the certificate and its intermediates), svid.key
(PKCS #8, mode 0600) and bundle.pem (the X.509 authorities of the SVID's trust domain). They are what --cert, --key
and --bundle take, if the trust domain is the cluster's home. All three change in one step, as the files of a
Kubernetes volume do: they are links through ..data, which names a folder with one generation.

With --watch the command keeps running. It renews the SVID with a new key at half of its lifetime, and at once when
the authority that signed it is tainted or revoked; it writes bundle.pem again when the bundle changes. It also
writes and keeps fresh bundles.json, the SPIFFE bundle map of all domains that the cluster can verify, and for each
of them roots-DOMAIN.pem: these are the files that the bootstrap file of 'entente xds bootstrap' names. The map has
neither JWT keys nor Ed25519 keys, for which gRPC for Java refuses the whole map; roots-DOMAIN.pem has the latter. If
renewal fails, the command reports it once on standard error and retries; the files stay.

With --agent the files come from the agent on the node, which issues what the entry of this program has; no member is
called. --spiffe-id selects one SVID if there are several. bundles.json and roots-DOMAIN.pem are always written.

The command ends with status 0 when
it is interrupted or terminated (SIGTERM), and with another status only if the first SVID is rejected.`,
		Example: `  entente svid x509 --spiffe-id spiffe://eu.example.org/web --dir /run/web/svid --dns web.example.org
  entente svid x509 --spiffe-id spiffe://eu.example.org/web --dir /run/web/svid --watch`,
		Args:    cli.Arguments(),
		PreRunE: cli.Required("dir"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case agent != "" && (ttl != 0 || len(dnsNames) > 0):
				return cli.Usagef("--agent has the SVID of an entry, which decides --ttl and --dns: leave them out")
			case agent != "":
				return fromAgent(cmd.Context(), env, agent, id, dir, watch)
			case id == "":
				return cli.Usagef("--spiffe-id is missing: name the ID to issue, or an --agent")
			}
			parsed, err := spiffeid.FromString(id)
			if err != nil {
				return cli.Usagef("--spiffe-id %q is not a SPIFFE ID: %v", id, err)
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf(
					"--dir %s cannot be made (%w): name a folder that this user may write to", dir, cli.Cause(err),
				)
			}
			request := client.X509SourceConfig{ID: parsed, TTL: ttl, DNSNames: dnsNames, CallTimeout: env.Timeout}
			written := func(issued *client.Issued) error {
				return env.Print(issued.Response, svidTable(id, dir, issued.Response))
			}
			if watch {
				return env.Stream(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
					return keepFiles(ctx, member, request, dir, env.Stderr, written)
				})(cmd, args)
			}
			return env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
				issued, err := member.Issue(ctx, request)
				if err != nil {
					return err
				}
				if err := writeFiles(dir, files{svid: issued.SVID, own: issued.Bundle()}); err != nil {
					return err
				}
				return written(issued)
			})(cmd, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&id, "spiffe-id", "", "the `ID` to issue: spiffe://DOMAIN/PATH")
	f.StringVar(&agent, "agent", "", "`SOCKET` of the agent on the node, in place of a member")
	f.StringVar(&dir, "dir", "", "`FOLDER` to write to")
	f.DurationVar(&ttl, "ttl", 0, "lifetime (default: the x509-svid-ttl of the domain)")
	f.StringArrayVar(&dnsNames, "dns", nil, "DNS `NAME` of the certificate; can be repeated")
	f.BoolVar(&watch, "watch", false, "keep running, and keep the files fresh")
	return cmd
}

func svidTable(id, dir string, answer *ententev1.IssueX509SVIDResponse) func(*cli.Table) {
	return func(t *cli.Table) {
		t.Field("spiffe id", id)
		t.Field("expires", cli.Time(answer.GetExpireTime()))
		t.Field("authority", answer.GetAuthorityId())
		for _, f := range svidFiles {
			t.Field("written", filepath.Join(dir, f))
		}
	}
}

func jwtCommand(env *cli.Env) *cobra.Command {
	var id string
	var audience []string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "jwt --spiffe-id ID --audience A",
		Short: "Issue a JWT-SVID and print it: a secret until it expires",
		Long: `Issue a JWT-SVID and print it. Whoever has it can act as the SPIFFE ID towards the audience until it
expires, so that it is a secret.`,
		Example: `  entente svid jwt --spiffe-id spiffe://eu.example.org/web --audience https://pay.example.org`,
		Args:    cli.Arguments(),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if err := cli.Required("spiffe-id", "audience")(cmd, args); err != nil {
				return err
			}
			if slices.Contains(audience, "") {
				return cli.Usagef("--audience is empty: name who accepts the token, such as https://pay.example.org")
			}
			return nil
		},
		RunE: env.Call(func(ctx context.Context, member *cli.Member, cmd *cobra.Command, _ []string) error {
			request := &ententev1.IssueJWTSVIDRequest{SpiffeId: id, Audience: audience}
			if cmd.Flags().Changed("ttl") {
				request.Ttl = durationpb.New(ttl)
			}
			issued, err := member.SVIDs().IssueJWTSVID(ctx, request)
			if err != nil {
				return err
			}
			return env.Print(issued, func(t *cli.Table) { t.Otherwise("%s", issued.GetToken()) })
		}),
	}
	f := cmd.Flags()
	f.StringVar(&id, "spiffe-id", "", "the `ID` to issue: spiffe://DOMAIN/PATH")
	f.StringArrayVar(&audience, "audience", nil, "who accepts the token; can be repeated")
	f.DurationVar(&ttl, "ttl", 0, "lifetime (default: the jwt-svid-ttl of the domain)")
	return cmd
}
