package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ententehq/entente/node"
)

func (a *app) vaultCommand() *cobra.Command {
	return group("vault", "Vault as the upstream of signing certificates", a.vaultPolicy(), a.vaultCheck())
}

func (a *app) vaultPolicy() *cobra.Command {
	var mount, issuer, domain string
	cmd := &cobra.Command{
		Use:   "policy --mount M",
		Short: "Print the Vault policy that a member needs for a PKI mount",
		Long: `Print the Vault policy that a member needs for a PKI mount, with a reason for each right. It allows nothing else.

With --domain it allows signing for that trust domain alone, which is what you want: without, for any.`,
		Args:    arguments(),
		PreRunE: required("mount"),
		RunE: func(*cobra.Command, []string) error {
			policy, err := node.VaultPolicy(mount, issuer, domain)
			if err != nil {
				return err
			}
			fmt.Fprint(a.stdout, policy)
			return nil
		},
	}
	cmd.Flags().StringVar(&mount, "mount", "", "path of the PKI mount")
	cmd.Flags().StringVar(&issuer, "issuer", "", "reference of the issuer that signs (default: the mount's default issuer)")
	cmd.Flags().StringVar(&domain, "domain", "", "trust domain that the mount belongs to")
	return cmd
}

// errVaultCheck ends a check that found what keeps a member from signing; what it is has been printed.
var errVaultCheck = errors.New("with this configuration a member could not take its certificates from Vault")

func (a *app) vaultCheck() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Try out what a member's configuration needs of Vault",
		Long: `Try out what a member's configuration needs of Vault: the login, the rights, a signature, the anchors, and roles in the
mount that could issue SPIFFE IDs beside Entente. It has a certificate signed for a key that it forgets, and changes
nothing else.`,
		Args:    arguments(),
		PreRunE: required("config"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings, ok, err := node.CheckVault(cmd.Context(), config)
			if err != nil {
				return err
			}
			for _, f := range findings {
				fmt.Fprintf(a.stdout, "%-8s %s: %s\n", f.Severity, f.Subject, f.Detail)
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
