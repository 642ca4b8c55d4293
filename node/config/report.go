package config

import (
	"fmt"
	"time"

	"github.com/ententehq/entente/authority/plan"
)

// Report returns lines on what the configuration means for outages of peers and for copies of the disk.
func (c *Config) Report() []string {
	return []string{outage(c), keysAtRest(c)}
}

// Warnings returns lines on settings that do what nobody wants.
func (c *Config) Warnings() []string {
	lines := []string{}
	if hint := c.BundleEndpoint.RefreshHint; hint < c.Federation.PeerMinRefresh {
		lines = append(lines, fmt.Sprintf("refresh_hint is %v, and the slowest peers poll every %v at most "+
			"(federation.peer_min_refresh; SPIRE: 15s): a new authority is used after %d times that; raise "+
			"refresh_hint, or lower peer_min_refresh if no such peer exists",
			hint, c.Federation.PeerMinRefresh, plan.HintsBeforeUse))
	}
	if s := c.Snapshots; s != nil && len(s.Recipients) == 0 {
		lines = append(lines, "snapshots are not encrypted: any reader of "+s.Dir+" has the whole state, without "+
			"private keys; add recipients, the public keys that age-keygen prints")
	}
	return lines
}

// outage describes how long a peer can be without this cluster's bundle endpoint and still verify what its present
// members sign meanwhile.
func outage(cfg *Config) string {
	defaults := cfg.DomainDefaults()
	hints := defaults.Dissemination(time.Now())
	memory := cfg.Authority.Keys == KeysMemory
	x509 := fmt.Sprintf("for at least %v, for which each root is in the bundle before it signs (a quarter of root_ttl "+
		"less half of ca_ttl)", plan.RootLead(cfg.SelfSigned.RootTTL, defaults.CATTL))
	jwt := fmt.Sprintf("for at least %v, for which each key is in the bundle before it signs (a quarter of "+
		"jwt_key_ttl)", plan.JWTLead(cfg.Authority.JWTKeyTTL))
	if memory {
		jwt = fmt.Sprintf("until this member restarts, since its keys are in memory: those that it makes then are "+
			"published %v before they sign", hints)
	}
	switch {
	case cfg.Vault != nil:
		x509 = fmt.Sprintf("as long as Vault's root stays, and for at least %v if that is replaced meanwhile", hints)
	case memory:
		x509 = jwt
	}
	return fmt.Sprintf("outage of a peer: it verifies new X509-SVIDs %s; new JWT-SVIDs %s", x509, jwt)
}

// keysAtRest describes how the private keys of this member's authorities are kept.
func keysAtRest(cfg *Config) string {
	a := cfg.Authority
	switch {
	case a.Keys == KeysMemory:
		return "signing keys: in memory, and lost when the process ends"
	case a.Keys == KeysTransit:
		return "signing keys: in Vault's Transit, which signs"
	case a.EncryptionOff || len(a.Encryption) == 0:
		return "signing keys: on disk and NOT encrypted: whoever has a copy of the data folder can sign; add an " +
			"encryption block to keys \"disk\""
	case a.Encryption[0].Transit != nil:
		return "signing keys: on disk, encrypted with a key in Vault's Transit"
	}
	return "signing keys: on disk, encrypted with the key in " + a.Encryption[0].Key.String()
}
