package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func (a *app) svidCommand() *cobra.Command {
	return group("svid", "Identities in hosted trust domains", a.svidX509Command(), a.svidJWTCommand())
}

// lifetime is a --ttl that was given, or nil.
func lifetime(cmd *cobra.Command, ttl time.Duration) *durationpb.Duration {
	if !cmd.Flags().Changed("ttl") {
		return nil
	}
	return durationpb.New(ttl)
}

func (a *app) svidX509Command() *cobra.Command {
	var id, dir string
	var ttl time.Duration
	var dnsNames []string
	var stay bool
	cmd := &cobra.Command{
		Use:   "x509 --spiffe-id ID --dir DIR",
		Short: "Issue an X509-SVID: writes svid.pem, svid.key and bundle.pem; with --watch keeps them fresh",
		Long: `Issue an X509-SVID for a key that is made here and never leaves this machine.

Writes into --dir, which is made where it is missing: svid.pem (the certificate and its intermediates), svid.key
(PKCS #8, mode 0600) and bundle.pem (the X.509 authorities of the SVID's trust domain). They are what --cert, --key and
--bundle take, where the trust domain is the cluster's home. All three change in one step, as the files of a Kubernetes
volume do: they are links through ..data, which names a folder with one generation.

With --watch the command stays. It renews the SVID with a new key at half of its life, and at once when the authority
that signed it is tainted or revoked; it writes bundle.pem anew when the bundle changes. It also writes and keeps fresh
bundles.json, the SPIFFE bundle map of all domains that the cluster can verify, and for each of them roots-DOMAIN.pem:
what the file of 'entente xds bootstrap' names. While renewing fails it says so on standard error, once, and tries on; the files stay. It ends with status 0 when it is interrupted or told to end
(SIGTERM), and with another one only when the first SVID is refused.`,
		Args:    arguments(),
		PreRunE: required("spiffe-id", "dir"),
		RunE: func(cmd *cobra.Command, args []string) error {
			parsed, err := spiffeid.FromString(id)
			if err != nil {
				return usagef("--spiffe-id %q is no SPIFFE ID: %v", id, err)
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf("--dir %s cannot be made (%w): name a folder that this user may write to", dir, bare(err))
			}
			want := wantedSVID{parsed, lifetime(cmd, ttl), dnsNames}
			written := func(answer *ententev1.IssueX509SVIDResponse) error {
				return a.print(answer, svidTable(id, dir, answer))
			}
			if stay {
				return a.following(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, _ []string) error {
					k := &keeper{
						wantedSVID: want, dir: dir, timeout: a.flags.timeout, log: a.stderr,
						svids: ententev1.NewSVIDServiceClient(conn), bundles: ententev1.NewBundleServiceClient(conn),
					}
					return k.keep(ctx, written)
				})(cmd, args)
			}
			return a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, _ []string) error {
				held, answer, err := want.issue(ctx, ententev1.NewSVIDServiceClient(conn))
				if err != nil {
					return err
				}
				if err := held.write(dir, nil); err != nil {
					return err
				}
				return written(answer)
			})(cmd, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&id, "spiffe-id", "", "the `ID` to issue: spiffe://DOMAIN/PATH")
	f.StringVar(&dir, "dir", "", "`FOLDER` to write to")
	f.DurationVar(&ttl, "ttl", 0, "lifetime (the domain's x509-svid-ttl if left out)")
	f.StringArrayVar(&dnsNames, "dns", nil, "DNS `NAME` that the certificate is good for too; can be given again")
	f.BoolVar(&stay, "watch", false, "stay, and keep the files fresh")
	return cmd
}

func svidTable(id, dir string, answer *ententev1.IssueX509SVIDResponse) func(*table) {
	return func(t *table) {
		t.field("spiffe id", id)
		t.field("expires", exact(answer.GetExpireTime()))
		t.field("authority", answer.GetAuthorityId())
		for _, f := range svidFiles {
			t.field("written", filepath.Join(dir, f))
		}
	}
}

func (a *app) svidJWTCommand() *cobra.Command {
	var id string
	var audience []string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "jwt --spiffe-id ID --audience A",
		Short: "Issue a JWT-SVID and print it: a secret until it expires",
		Args:  arguments(),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if err := required("spiffe-id", "audience")(cmd, args); err != nil {
				return err
			}
			if slices.Contains(audience, "") {
				return usagef("--audience is empty: name who is to accept the token, such as https://pay.example.org")
			}
			return nil
		},
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, cmd *cobra.Command, _ []string) error {
			issued, err := ententev1.NewSVIDServiceClient(conn).IssueJWTSVID(ctx, &ententev1.IssueJWTSVIDRequest{
				SpiffeId: id, Audience: audience, Ttl: lifetime(cmd, ttl),
			})
			if err != nil {
				return err
			}
			return a.print(issued, func(t *table) { t.otherwise("%s", issued.GetToken()) })
		}),
	}
	f := cmd.Flags()
	f.StringVar(&id, "spiffe-id", "", "the `ID` to issue: spiffe://DOMAIN/PATH")
	f.StringArrayVar(&audience, "audience", nil, "whom it is for; can be given again")
	f.DurationVar(&ttl, "ttl", 0, "lifetime (the domain's jwt-svid-ttl if left out)")
	return cmd
}
