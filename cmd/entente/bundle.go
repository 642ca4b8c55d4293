package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node"
)

func (a *app) bundleCommand() *cobra.Command {
	return group("bundle", "Trust bundles, of hosted and of foreign trust domains",
		a.bundleListCommand(), a.bundleShowCommand(), a.bundleWatchCommand(), a.bundleHistoryCommand(), a.bundleVerifyCommand())
}

func (a *app) bundleListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the bundles that the cluster holds",
		Args:  arguments(),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, _ []string) error {
			client := ententev1.NewBundleServiceClient(conn)
			all := &ententev1.ListBundlesResponse{}
			for request := (&ententev1.ListBundlesRequest{}); ; {
				page, err := client.ListBundles(ctx, request)
				if err != nil {
					return err
				}
				all.Revision = page.GetRevision()
				all.Bundles = append(all.Bundles, page.GetBundles()...)
				if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
					break
				}
			}
			return a.print(all, func(t *table) {
				t.columns("DOMAIN", "HOSTED", "SEQUENCE", "X.509", "JWT", "FRESHNESS", "CHANGED")
				for _, b := range all.GetBundles() {
					t.row(b.GetTrustDomain(), yes(b.GetHosted()), sequence(b), b.GetX509Authorities(), b.GetJwtAuthorities(), name(b.GetFreshness()), since(b.GetChangeTime()))
				}
				t.otherwise("There is no bundle that you may see.")
			})
		}),
	}
}

// Ways to show a bundle's document.
const (
	formatSPIFFE = "spiffe"
	formatPEM    = "pem"
	formatJSON   = "json"
)

func (a *app) bundleShowCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "show [DOMAIN]",
		Short: "Show a bundle; without DOMAIN that of the home trust domain",
		Args:  arguments("[DOMAIN]"),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			formats := []string{formatSPIFFE, formatPEM, formatJSON}
			if cmd.Flags().Changed("format") && !slices.Contains(formats, format) {
				return usagef("--format %q is none of %s", format, strings.Join(formats, ", "))
			}
			return nil
		},
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			b, err := ententev1.NewBundleServiceClient(conn).GetBundle(ctx, &ententev1.GetBundleRequest{TrustDomain: optional(args)})
			if err != nil {
				return err
			}
			switch format {
			case formatSPIFFE:
				_, err = fmt.Fprintf(a.stdout, "%s\n", strings.TrimSuffix(string(b.GetDocument()), "\n"))
				return err
			case formatPEM:
				report, err := node.ReadBundle(b.GetTrustDomain(), b.GetDocument())
				if err != nil {
					return fmt.Errorf("read the bundle of %s: %w", b.GetTrustDomain(), err)
				}
				_, err = a.stdout.Write(report.PEM)
				return err
			case formatJSON:
				a.flags.output = outputJSON
			}
			return a.print(b, func(t *table) {
				t.field("trust domain", b.GetTrustDomain())
				t.field("hosted", yes(b.GetHosted()))
				t.field("sequence", sequence(b))
				t.field("refresh hint", span(b.GetRefreshHint()))
				t.field("x.509 authorities", b.GetX509Authorities())
				t.field("jwt authorities", b.GetJwtAuthorities())
				t.field("freshness", name(b.GetFreshness()))
				t.field("changed", exact(b.GetChangeTime()))
				t.field("digest", b.GetDigest())
				t.field("revision", b.GetRevision())
			})
		}),
	}
	cmd.Flags().StringVar(&format, "format", "", "print the bundle itself: spiffe (the SPIFFE document), pem (its X.509 authorities) or json (the API's)")
	return cmd
}

func (a *app) bundleWatchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "watch [DOMAIN]",
		Short: "Print each bundle, and then each change, until interrupted",
		Args:  arguments("[DOMAIN]"),
		RunE: a.following(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			stream, err := ententev1.NewBundleServiceClient(conn).WatchBundles(ctx, &ententev1.WatchBundlesRequest{TrustDomains: args})
			if err != nil {
				return err
			}
			for {
				change, err := stream.Recv()
				switch {
				case errors.Is(err, io.EOF):
					return nil
				case err != nil:
					return err
				}
				if err := a.printOne(change, func() string { return bundleLines(change, time.Now()) }); err != nil {
					return err
				}
			}
		}),
	}
}

// bundleLines is a change as lines of text, one a bundle.
func bundleLines(change *ententev1.WatchBundlesResponse, now time.Time) string {
	var lines []string
	at := now.UTC().Format(time.TimeOnly)
	for _, b := range change.GetChanged() {
		lines = append(lines, fmt.Sprintf("%s  %s  sequence %s, %d X.509 and %d JWT authorities, %s, revision %d",
			at, printable(b.GetTrustDomain()), sequence(b), b.GetX509Authorities(), b.GetJwtAuthorities(), name(b.GetFreshness()), b.GetRevision()))
	}
	for _, td := range change.GetDeleted() {
		lines = append(lines, fmt.Sprintf("%s  %s  is gone: it is trusted no more", at, printable(td)))
	}
	if len(lines) == 0 {
		lines = append(lines, at+"  no bundle yet")
	}
	return strings.Join(lines, "\n")
}

func sequence(b *ententev1.Bundle) string {
	if b.Sequence == nil {
		return "none"
	}
	return fmt.Sprint(b.GetSequence())
}

func (a *app) bundleVerifyCommand() *cobra.Command {
	var domain string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a SPIFFE bundle document as a cluster would, without a member",
		Long: `Check the SPIFFE bundle document in FILE ('-' for standard input) by the rules by which a cluster accepts one,
and say what is in it and what of it would be ignored.`,
		Args: arguments("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := bareDomain("--domain", domain); err != nil {
				return err
			}
			if _, err := spiffeid.TrustDomainFromString(domain); err != nil && domain != "" {
				return usagef("--domain %q is no trust domain: %v", domain, err)
			}
			document, err := a.readFile(bundleInput, args[0])
			if err != nil {
				return err
			}
			if bytes.HasPrefix(bytes.TrimSpace(document), []byte("-----BEGIN")) {
				return fmt.Errorf("%s is PEM, but a bundle document is JSON: 'entente bundle show --format spiffe' prints one", args[0])
			}
			report, err := node.ReadBundle(domain, document)
			if err != nil {
				return fmt.Errorf("%s would be refused: %w; 'entente bundle show --format spiffe' prints a document that is accepted", args[0], err)
			}
			return a.print(report, reportTable(report))
		},
	}
	cmd.Flags().StringVar(&domain, "domain", "", "the trust domain that it is for, to stand in the answer: the document does not say")
	return cmd
}

func reportTable(r *node.BundleReport) func(*table) {
	return func(t *table) {
		t.field("trust domain", r.TrustDomain)
		if r.Sequence != nil {
			t.field("sequence", *r.Sequence)
		} else {
			t.field("sequence", "none")
		}
		t.field("refresh hint", r.RefreshHint)
		t.field("digest", r.Digest)
		for _, c := range r.X509Authorities {
			ends := "valid until "
			if time.Now().After(c.NotAfter) {
				ends = "EXPIRED at "
			}
			t.field("x.509 authority", fmt.Sprintf("%s, key %s, %s%s", c.Subject, c.KeyID, ends, c.NotAfter.UTC().Format(time.RFC3339)))
		}
		for _, k := range r.JWTAuthorities {
			t.field("jwt authority", fmt.Sprintf("%s, %s", k.KeyID, k.Key))
		}
		if len(r.X509Authorities)+len(r.JWTAuthorities) == 0 {
			t.field("authorities", "none: everything from this domain is untrusted")
		}
		for _, i := range r.Ignored {
			t.field("ignored", i)
		}
	}
}
