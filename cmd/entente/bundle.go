package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node/inspect"
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
	formatSPIFFE     = "spiffe"
	formatPEM        = "pem"
	formatJSON       = "json"
	formatStatements = "statements"
)

func (a *app) bundleShowCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "show [DOMAIN]",
		Short: "Show a bundle; without DOMAIN that of the home trust domain",
		Args:  arguments("[DOMAIN]"),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			formats := []string{formatSPIFFE, formatPEM, formatJSON, formatStatements}
			if cmd.Flags().Changed("format") && !slices.Contains(formats, format) {
				return usagef("--format %q is none of %s", format, strings.Join(formats, ", "))
			}
			return nil
		},
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			if format == formatStatements {
				return a.printStatements(ctx, conn, optional(args))
			}
			b, err := ententev1.NewBundleServiceClient(conn).GetBundle(ctx, &ententev1.GetBundleRequest{TrustDomain: optional(args)})
			if err != nil {
				return err
			}
			switch format {
			case formatSPIFFE:
				_, err = fmt.Fprintf(a.stdout, "%s\n", strings.TrimSuffix(string(b.GetDocument()), "\n"))
				return err
			case formatPEM:
				report, err := inspect.ReadBundle(b.GetTrustDomain(), b.GetDocument())
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
	cmd.Flags().StringVar(&format, "format", "", "print the bundle itself: spiffe (the SPIFFE document), pem (its X.509 authorities), json (the API's), or statements (the signed statements on it, of a hosted domain)")
	return cmd
}

func (a *app) bundleWatchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "watch [DOMAIN]",
		Short: "Print each bundle, and then each change in words, until interrupted",
		Args:  arguments("[DOMAIN]"),
		RunE: a.following(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			stream, err := ententev1.NewBundleServiceClient(conn).WatchBundles(ctx, &ententev1.WatchBundlesRequest{TrustDomains: args})
			if err != nil {
				return err
			}
			documents := map[string][]byte{}
			for {
				change, err := stream.Recv()
				switch {
				case errors.Is(err, io.EOF):
					return nil
				case err != nil:
					return err
				}
				if err := a.printOne(change, func() string { return bundleLines(change, documents, time.Now()) }); err != nil {
					return err
				}
			}
		}),
	}
}

// bundleLines is a change as lines of text: one a bundle, and below it what is different from what was printed before.
// documents are the bundles as they were printed last.
func bundleLines(change *ententev1.WatchBundlesResponse, documents map[string][]byte, now time.Time) string {
	var lines []string
	at := now.UTC().Format(time.TimeOnly)
	for _, b := range change.GetChanged() {
		lines = append(lines, fmt.Sprintf("%s  %s  sequence %s, %d X.509 and %d JWT authorities, %s, revision %d",
			at, printable(b.GetTrustDomain()), sequence(b), b.GetX509Authorities(), b.GetJwtAuthorities(), name(b.GetFreshness()), b.GetRevision()))
		if before, known := documents[b.GetTrustDomain()]; known {
			lines = append(lines, differencesOf(b, before)...)
		}
		documents[b.GetTrustDomain()] = b.GetDocument()
	}
	for _, td := range change.GetDeleted() {
		lines = append(lines, fmt.Sprintf("%s  %s  is gone: it is trusted no more", at, printable(td)))
		delete(documents, td)
	}
	if len(lines) == 0 {
		lines = append(lines, at+"  no bundle yet")
	}
	return strings.Join(lines, "\n")
}

// differencesOf says what is different in b from the document that was there before.
func differencesOf(b *ententev1.Bundle, before []byte) []string {
	words, err := inspect.BundleDifferences(b.GetTrustDomain(), before, b.GetDocument())
	switch {
	case err != nil:
		words = []string{"what is different cannot be said: " + err.Error()}
	case len(words) == 0:
		words = []string{"the keys and the refresh hint are the same"}
	}
	for i, text := range words {
		words[i] = "          " + printable(text)
	}
	return words
}

func sequence(b *ententev1.Bundle) string {
	if b.Sequence == nil {
		return "none"
	}
	return fmt.Sprint(b.GetSequence())
}
