package bundle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node/inspect"
)

// errContradiction ends a check with evidence that an honest domain does not produce.
var errContradiction = errors.New(
	"the evidence is contradictory: keep the files, and contact the domain's operators by another way than the " +
		"bundle came",
)

var (
	documentInput = cli.Input{
		Name: "FILE", Remedy: "name a SPIFFE bundle document, as 'entente bundle show --format spiffe' prints it",
	}
	statementsInput = cli.Input{
		Name: "--statements", Remedy: "name a document of statements, as 'entente bundle show --format statements' " +
			"prints it " +
			"or a bundle endpoint serves it at /bundles/DOMAIN/statements",
	}
)

func verifyCommand(env *cli.Env) *cobra.Command {
	var domain, statements, against string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a SPIFFE bundle document as a cluster does, and its statements",
		Long: `Check the SPIFFE bundle document in FILE ('-' for standard input) by the rules by which a cluster
accepts one, and print its content and what of it would be ignored. A file of X.509 authorities in PEM, as SPIRE
prints it by default, is a bundle without JWT authorities and sequence.

With --statements, check the domain's signed statements and the bundle against them, without a member. With --against
DOMAIN, compare both with the history of that domain in the cluster. Both describe what continues what and where a
chain starts again, and fail on a contradiction. 'entente bundle show --format statements' prints statements; a
bundle endpoint serves them at /bundles/DOMAIN/statements.`,
		Example: `  entente bundle verify eu.json --domain eu.example.org
  entente bundle verify eu.json --statements eu-statements.json --against eu.example.org`,
		Args: cli.Arguments("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cli.BareDomain("--domain", domain); err != nil {
				return err
			}
			if err := cli.BareDomain("--against", against); err != nil {
				return err
			}
			if _, err := spiffeid.TrustDomainFromString(domain); err != nil && domain != "" {
				return cli.Usagef("--domain %q is not a trust domain: %v", domain, err)
			}
			if domain != "" && against != "" && domain != against {
				return cli.Usagef("--domain is %s and --against %s: name one", domain, against)
			}
			document, err := env.ReadFile(documentInput, args[0])
			if err != nil {
				return err
			}
			report, err := inspect.ReadBundle(domain, document)
			if err != nil {
				return fmt.Errorf(
					"%s would be rejected: %w; "+
						"'entente bundle show --format spiffe' prints a document that is accepted",
					args[0],
					err,
				)
			}
			if statements == "" && against == "" {
				return env.Print(report, reportTable(report))
			}
			return verifyStatements(env, cmd, args, document, statements, cmp.Or(against, domain), against != "")
		},
	}
	cmd.Flags().StringVar(&domain, "domain", "", "the trust domain of the bundle, which the document does not name")
	cmd.Flags().StringVar(&statements, "statements", "", "a file of the domain's statements, to check with the bundle")
	cmd.Flags().StringVar(&against, "against", "", "the trust domain whose history in the cluster is compared")
	return cmd
}

// verifyStatements checks a bundle against statements, and both against the history in a cluster if compare is set.
func verifyStatements(
	env *cli.Env, cmd *cobra.Command, args []string, document []byte, file, domain string, compare bool,
) error {
	var evidence []byte
	if file != "" {
		var err error
		if evidence, err = env.ReadFile(statementsInput, file); err != nil {
			return err
		}
		domain = cmp.Or(domain, inspect.StatementsDomain(evidence))
	}
	check, err := inspect.NewBundleCheck(domain, document)
	if err != nil {
		return err
	}
	if evidence != nil {
		if err := check.Statements(evidence); err != nil {
			return fmt.Errorf("%s cannot be read: %w", file, err)
		}
	}
	if compare {
		call := env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			return against(ctx, member, domain, check, evidence == nil)
		})
		if err := call(cmd, args); err != nil {
			return err
		}
	}
	if err := env.Print(check, checkTable(check)); err != nil {
		return err
	}
	if len(check.Contradictions) > 0 {
		return errContradiction
	}
	return nil
}

// against compares with the history in a cluster, and with the cluster's own statements if fetch is set.
func against(ctx context.Context, member *cli.Member, domain string, check *inspect.BundleCheck, fetch bool) error {
	client := member.Bundles()
	history, err := client.GetBundleHistory(ctx, &ententev1.GetBundleHistoryRequest{TrustDomain: domain})
	if err != nil {
		return err
	}
	if fetch && history.GetHosted() {
		list, err := statementsOf(ctx, client, domain)
		if err != nil {
			return err
		}
		document, err := inspect.StatementsDocument(domain, list)
		if err != nil {
			return err
		}
		if err := check.Statements(document); err != nil {
			return err
		}
	}
	var shown []inspect.Shown
	for _, v := range history.GetVersions() {
		shown = append(
			shown,
			inspect.Shown{
				Sequence:        v.Sequence,
				Digest:          v.GetDigest(),
				StatementDigest: v.GetStatementDigest(),
				Source:          v.GetSource(),
			},
		)
	}
	return check.Against("the cluster", shown)
}

// statementsOf returns all statements of a hosted domain.
func statementsOf(ctx context.Context, client ententev1.BundleServiceClient, domain string) ([]string, error) {
	answer, err := client.ListBundleStatements(ctx, &ententev1.ListBundleStatementsRequest{TrustDomain: domain})
	return answer.GetStatements(), err
}

// printStatements prints the document of a hosted domain's statements.
func printStatements(ctx context.Context, env *cli.Env, member *cli.Member, domain string) error {
	answer, err := member.Bundles().ListBundleStatements(ctx, &ententev1.ListBundleStatementsRequest{
		TrustDomain: domain,
	})
	if err != nil {
		return err
	}
	document, err := inspect.StatementsDocument(answer.GetTrustDomain(), answer.GetStatements())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "%s\n", document)
	return err
}

func checkTable(c *inspect.BundleCheck) func(*cli.Table) {
	return func(t *cli.Table) {
		t.Field("trust domain", c.TrustDomain)
		if c.Sequence != nil {
			t.Field("sequence", *c.Sequence)
		} else {
			t.Field("sequence", "none")
		}
		t.Field("digest", c.Digest)
		for _, text := range c.Findings {
			t.Field("found", text)
		}
		for _, text := range c.Contradictions {
			t.Field("CONTRADICTION", text)
		}
	}
}

func reportTable(r *inspect.BundleReport) func(*cli.Table) {
	return func(t *cli.Table) {
		t.Field("trust domain", r.TrustDomain)
		if r.Sequence != nil {
			t.Field("sequence", *r.Sequence)
		} else {
			t.Field("sequence", "none")
		}
		t.Field("refresh hint", r.RefreshHint)
		t.Field("digest", r.Digest)
		for _, c := range r.X509Authorities {
			ends := "valid until "
			if time.Now().After(c.NotAfter) {
				ends = "EXPIRED at "
			}
			t.Field(
				"x.509 authority",
				fmt.Sprintf("%s, key %s, %s%s", c.Subject, c.KeyID, ends, c.NotAfter.UTC().Format(time.RFC3339)),
			)
		}
		for _, k := range r.JWTAuthorities {
			t.Field("jwt authority", fmt.Sprintf("%s, %s", k.KeyID, k.Key))
		}
		for _, k := range r.WITAuthorities {
			t.Field("wit authority", fmt.Sprintf("%s, %s", k.KeyID, k.Key))
		}
		if len(r.X509Authorities)+len(r.JWTAuthorities) == 0 {
			t.Field("authorities", "none: everything from this domain is untrusted")
		}
		if r.IgnoredKeys > 0 {
			t.Field("ignored keys", fmt.Sprintf("%d, which no verifier could use", r.IgnoredKeys))
		}
		for _, i := range r.Ignored {
			t.Field("ignored", i)
		}
	}
}
