// Package bundle has the commands that show, compare and verify trust bundles.
package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node/inspect"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("bundle", "Trust bundles, of hosted and of foreign trust domains",
		listCommand(env), showCommand(env), watchCommand(env), historyCommand(env), verifyCommand(env))
}

func listCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the bundles that the cluster holds",
		Long: `List the bundles that the cluster holds: those of hosted trust domains, and of foreign ones by a
relationship or the attestation of a hub. Domains that the caller may not see are left out.`,
		Example: `  entente bundle list`,
		Args:    cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			client := member.Bundles()
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
			return env.Print(all, func(t *cli.Table) {
				t.Columns("DOMAIN", "HOSTED", "SEQUENCE", "X.509", "JWT", "FRESHNESS", "CHANGED")
				for _, b := range all.GetBundles() {
					t.Row(
						b.GetTrustDomain(), cli.YesNo(b.GetHosted()), cli.Sequence(b.Sequence),
						b.GetX509Authorities(), b.GetJwtAuthorities(), cli.EnumName(b.GetFreshness()),
						cli.Since(b.GetChangeTime()),
					)
				}
				t.Otherwise("No bundle is visible to you.")
			})
		}),
	}
}

// Ways to show a bundle's document.
const (
	formatSPIFFE     = "spiffe"
	formatPEM        = "pem"
	formatStatements = "statements"
)

func showCommand(env *cli.Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "show [DOMAIN]",
		Short: "Show a bundle; without DOMAIN the one of the home trust domain",
		Long: `Show a bundle, and how far it is trusted; without DOMAIN the one of the home trust domain. With --format
the bundle itself is printed, as other programs read it.`,
		Example: `  entente bundle show us.example.org
  entente bundle show --format spiffe >eu.json`,
		Args: cli.Arguments("[DOMAIN]"),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			formats := []string{formatSPIFFE, formatPEM, formatStatements}
			if cmd.Flags().Changed("format") && !slices.Contains(formats, format) {
				return cli.Usagef("--format %q is not one of %s", format, strings.Join(formats, ", "))
			}
			return nil
		},
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			if format == formatStatements {
				return printStatements(ctx, env, member, cli.Optional(args))
			}
			b, err := member.Bundles().GetBundle(ctx, &ententev1.GetBundleRequest{TrustDomain: cli.Optional(args)})
			if err != nil {
				return err
			}
			switch format {
			case formatSPIFFE:
				_, err = fmt.Fprintf(env.Stdout, "%s\n", strings.TrimSuffix(string(b.GetDocument()), "\n"))
				return err
			case formatPEM:
				report, err := inspect.ReadBundle(b.GetTrustDomain(), b.GetDocument())
				if err != nil {
					return fmt.Errorf("read the bundle of %s: %w", b.GetTrustDomain(), err)
				}
				_, err = env.Stdout.Write(report.PEM)
				return err
			}
			return env.Print(b, func(t *cli.Table) {
				t.Field("trust domain", b.GetTrustDomain())
				t.Field("hosted", cli.YesNo(b.GetHosted()))
				t.Field("sequence", cli.Sequence(b.Sequence))
				t.Field("refresh hint", cli.Duration(b.GetRefreshHint()))
				t.Field("x.509 authorities", b.GetX509Authorities())
				t.Field("jwt authorities", b.GetJwtAuthorities())
				if b.GetIgnoredKeys() > 0 {
					t.Field("ignored keys", fmt.Sprintf("%d, which no verifier could use", b.GetIgnoredKeys()))
				}
				t.Field("freshness", cli.EnumName(b.GetFreshness()))
				t.Field("changed", cli.Time(b.GetChangeTime()))
				t.Field("digest", b.GetDigest())
				t.Field("revision", b.GetRevision())
			})
		}),
	}
	cmd.Flags().StringVar(&format, "format", "", "print the bundle itself: spiffe (the SPIFFE document), pem (its "+
		"X.509 authorities), or statements (the signed statements of a hosted domain)")
	cli.FlagValues(cmd, "format", formatSPIFFE, formatPEM, formatStatements)
	return cmd
}

func watchCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "watch [DOMAIN]",
		Short: "Print each bundle, and then a description of each change, until interrupted",
		Long: `Print each bundle, and then a description of each change, until the command is interrupted. With DOMAIN
it follows the bundle of that domain alone.`,
		Example: `  entente bundle watch
  entente bundle watch us.example.org -o json`,
		Args: cli.Arguments("[DOMAIN]"),
		RunE: env.Stream(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			stream, err := member.Bundles().WatchBundles(ctx, &ententev1.WatchBundlesRequest{TrustDomains: args})
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
				lines := func() string { return bundleLines(change, documents, time.Now()) }
				if err := env.PrintOne(change, lines); err != nil {
					return err
				}
			}
		}),
	}
}

// bundleLines returns a change as lines of text: one for each bundle, and below it the differences from the last print.
// documents holds the bundles of the last print, and is updated.
func bundleLines(change *ententev1.WatchBundlesResponse, documents map[string][]byte, now time.Time) string {
	var lines []string
	at := now.UTC().Format(time.TimeOnly)
	for _, b := range change.GetChanged() {
		lines = append(lines, fmt.Sprintf(
			"%s  %s  sequence %s, %d X.509 and %d JWT authorities, %s, revision %d", at,
			cli.Printable(b.GetTrustDomain()), cli.Sequence(b.Sequence), b.GetX509Authorities(),
			b.GetJwtAuthorities(), cli.EnumName(b.GetFreshness()), b.GetRevision(),
		))
		if before, known := documents[b.GetTrustDomain()]; known {
			lines = append(lines, differencesOf(b, before)...)
		}
		documents[b.GetTrustDomain()] = b.GetDocument()
	}
	for _, td := range change.GetDeleted() {
		lines = append(lines, fmt.Sprintf("%s  %s  is deleted: it is no longer trusted", at, cli.Printable(td)))
		delete(documents, td)
	}
	if len(lines) == 0 {
		lines = append(lines, at+"  no bundle yet")
	}
	return strings.Join(lines, "\n")
}

// differencesOf returns how b differs from the document before.
func differencesOf(b *ententev1.Bundle, before []byte) []string {
	words, err := inspect.BundleDifferences(b.GetTrustDomain(), before, b.GetDocument())
	switch {
	case err != nil:
		words = []string{"the difference is unknown: " + err.Error()}
	case len(words) == 0:
		words = []string{"the keys and the refresh hint are the same"}
	}
	for i, text := range words {
		words[i] = "          " + cli.Printable(text)
	}
	return words
}
