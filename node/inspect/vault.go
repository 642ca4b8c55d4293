package inspect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/vaultca"
	"github.com/ententehq/entente/vaultca/transit"
	"github.com/ententehq/entente/vaultca/vault"
)

// VaultPolicyFor is the scope of a Vault policy: a PKI mount, a Transit mount, or both.
type VaultPolicyFor struct {
	// PKIMount is the path of a PKI mount. Issuer and TrustDomain restrict what may be signed there; both are optional.
	PKIMount, Issuer, TrustDomain string
	// TransitMount is the path of a Transit mount. The policy covers the keys of Cluster, or of one Member if that is
	// set. KeyPrefix is optional.
	TransitMount, KeyPrefix, Cluster, Member string
	// Wrapping selects the rights of the wrapping key of signing keys on disk, instead of those of signing keys in
	// Transit.
	Wrapping bool
}

// VaultPolicy returns the Vault policy that a member needs.
func VaultPolicy(p VaultPolicyFor) (string, error) {
	var pki []vaultca.PolicyFor
	var keys []transit.PolicyFor
	if p.PKIMount != "" {
		of := vaultca.PolicyFor{Mount: p.PKIMount}
		if p.Issuer != "" {
			of.Issuers = []string{p.Issuer}
		}
		if p.TrustDomain != "" {
			td, err := bundle.ParseTrustDomain(p.TrustDomain)
			if err != nil {
				return "", err
			}
			of.TrustDomain = td
		}
		pki = append(pki, of)
	}
	if p.TransitMount != "" {
		if p.Cluster == "" {
			return "", errors.New("the names of keys in Transit begin with the cluster's name; give it with --cluster")
		}
		keys = append(keys, transit.PolicyFor{
			Mount: p.TransitMount, Prefix: p.KeyPrefix, Cluster: p.Cluster, Member: p.Member, Wrapping: p.Wrapping,
		})
	}
	return vaultca.Policies(pki, keys)
}

// VaultPolicyOf returns the Vault policy for exactly what a configuration file uses.
func VaultPolicyOf(file string) (string, error) {
	cfg, err := config.Load(file)
	if err != nil {
		return "", err
	}
	if err := usesVault(cfg, file); err != nil {
		return "", err
	}
	var pki []vaultca.PolicyFor
	var keys []transit.PolicyFor
	if cfg.Vault != nil {
		pki = cfg.Vault.PoliciesFor()
	}
	if cfg.Transit != nil {
		keys = append(keys, cfg.Transit.PolicyFor())
	}
	for _, e := range cfg.Authority.Encryption {
		if e.Transit != nil {
			p := e.Transit.PolicyFor()
			p.Wrapping = true
			keys = append(keys, p)
		}
	}
	return vaultca.Policies(pki, keys)
}

// usesVault returns an error for a configuration that does not use Vault.
func usesVault(c *config.Config, file string) error {
	wraps := slices.ContainsFunc(c.Authority.Encryption, func(e config.KeyEncryption) bool { return e.Transit != nil })
	if c.Vault == nil && c.Transit == nil && !wraps {
		return fmt.Errorf("%s has neither a block `upstream \"vault\"` nor `keys \"vault_transit\"`: "+
			"its members keep their keys and sign below roots of their own", file)
	}
	return nil
}

// VaultFinding is one finding of [CheckVault].
type VaultFinding struct {
	Severity string `json:"severity"`
	Subject  string `json:"subject"`
	Detail   string `json:"detail"`
}

// CheckVault tests what a configuration file needs of Vault. ok is false if a member could not sign.
func CheckVault(ctx context.Context, file string) (findings []VaultFinding, ok bool, err error) {
	cfg, err := config.Load(file)
	if err != nil {
		return nil, false, err
	}
	if err := usesVault(cfg, file); err != nil {
		return nil, false, err
	}
	var found []vault.Finding
	if cfg.Vault != nil {
		check := *cfg.Vault
		check.LongestSVID = func(spiffeid.TrustDomain) time.Duration { return cfg.Authority.X509SVIDTTL }
		found = vaultca.Check(ctx, check)
	}
	if cfg.Transit != nil {
		for _, f := range transit.Check(ctx, *cfg.Transit) {
			if f.Subject != "login" || cfg.Vault == nil { // the check of the upstream has covered it
				found = append(found, f)
			}
		}
	}
	for _, e := range cfg.Authority.Encryption {
		if e.Transit == nil {
			continue
		}
		for _, f := range transit.CheckWrapping(ctx, *e.Transit) {
			if f.Subject != "login" || cfg.Vault == nil { // the check of the upstream has covered it
				found = append(found, f)
			}
		}
	}
	for _, f := range found {
		findings = append(findings, VaultFinding{string(f.Severity), f.Subject, f.Detail})
	}
	return findings, vault.Worst(found) != vault.Failure, nil
}
