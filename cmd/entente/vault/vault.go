// Package vault has the commands that prepare and check Vault as an upstream.
package vault

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node/inspect"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group(
		"vault", "Vault as the upstream of signing certificates, and as the place of signing keys",
		policyCommand(env), checkCommand(env),
	)
}

func policyCommand(env *cli.Env) *cobra.Command {
	var p inspect.VaultPolicyFor
	var config string
	cmd := &cobra.Command{
		Use:   "policy --config FILE | --mount M | --transit-mount M --cluster C",
		Short: "Print the Vault policy that a member needs",
		Long: `Print the Vault policy that a member needs, with a reason for each right. It allows nothing else.

With --config it is the policy for what that configuration uses; otherwise the flags describe it.

With --domain, which is recommended, it allows signing for that trust domain only in the PKI mount; without, for any.
With --member it reaches only the keys of that member in the Transit mount; without, those of every member.`,
		Example: `  entente vault policy --config /etc/entente/entente.hcl
  entente vault policy --mount pki_eu --domain eu.example.org
  entente vault policy --transit-mount transit --cluster eu --member eu-1`,
		Args: cli.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var policy string
			var err error
			switch {
			case config != "" && cmd.Flags().NFlag() > 1:
				return cli.Usagef("--config is enough: leave out the other flags")
			case config != "":
				policy, err = inspect.VaultPolicyOf(config)
			case p.PKIMount == "" && p.TransitMount == "":
				return cli.Usagef("--mount is missing: the path of a PKI mount; or give --transit-mount, or --config")
			default:
				policy, err = inspect.VaultPolicy(p)
			}
			if err != nil {
				return err
			}
			fmt.Fprint(env.Stdout, policy)
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "a member's configuration file")
	cmd.Flags().StringVar(&p.PKIMount, "mount", "", "path of the PKI mount")
	cmd.Flags().StringVar(&p.Issuer, "issuer", "", "reference of the issuer that signs (default: the mount's "+
		"default issuer)")
	cmd.Flags().StringVar(&p.TrustDomain, "domain", "", "trust domain that the PKI mount belongs to")
	cmd.Flags().StringVar(&p.TransitMount, "transit-mount", "", "path of the Transit mount")
	cmd.Flags().StringVar(&p.Cluster, "cluster", "", "name of the cluster whose keys are in the Transit mount")
	cmd.Flags().StringVar(&p.Member, "member", "", "id of the member with the keys (default: every member of the "+
		"cluster)")
	cmd.Flags().BoolVar(&p.Wrapping, "wrapping", false, "print the rights for the key in the Transit mount that wraps "+
		"signing keys on disk")
	cmd.Flags().StringVar(&p.KeyPrefix, "key-prefix", "", "prefix of the names of the keys, as in the configuration "+
		"(default: entente)")
	return cmd
}

// errVaultCheck ends a check with findings that keep a member from signing. They have been printed.
var errVaultCheck = errors.New("with this configuration a member cannot use Vault as it must")

func checkCommand(env *cli.Env) *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Try what a member's configuration needs of Vault",
		Long: `Try what a member's configuration needs of Vault: the login, the rights, a signature, the anchors, and
roles in the mount that could issue SPIFFE IDs beside Entente; and for keys in Transit, that a key can be made, used
and deleted. It requests a certificate for a key that it discards, makes a key and deletes it, and changes nothing
else.`,
		Example: `  entente vault check --config /etc/entente/entente.hcl`,
		Args:    cli.Arguments(),
		PreRunE: cli.Required("config"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings, ok, err := inspect.CheckVault(cmd.Context(), config)
			if err != nil {
				return err
			}
			for _, f := range findings {
				fmt.Fprintf(env.Stdout, "%-8s %s: %s\n", f.Severity, f.Subject, f.Detail)
			}
			if !ok {
				return errVaultCheck
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the member's configuration file")
	return cmd
}
