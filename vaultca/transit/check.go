package transit

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/ententehq/entente/vaultca/vault"
)

// checker checks the Transit mount of a configuration.
type checker struct{ vault.Checker }

// Check tries the rights and settings that keys in Transit need: it makes a key, signs with it and deletes it, and
// tries calls that the policy should deny. It changes nothing else.
func Check(ctx context.Context, c Config) []vault.Finding {
	k := &checker{}
	if err := c.Validate(); err != nil {
		k.Add(vault.Failure, "configuration", "%v", err)
		return k.Findings
	}
	c = c.withDefaults()
	if !k.Prepare(c.Vault) {
		return k.Findings
	}
	defer k.Caller.Close()
	s, _, err := k.Caller.Session(ctx)
	if err != nil {
		k.Add(vault.Failure, "login", "%v", err)
		return k.Findings
	}
	k.Login(ctx, s)
	k.transitKey(ctx, c)
	k.transitLimits(ctx, c)
	return k.Findings
}

// probe returns a key for a check alone.
func probe(c Config, member string) entry {
	return entry{Name: "check", Mount: c.Mount, Key: KeyPrefix(c.Prefix, c.Cluster, member) + "check-" + chance()}
}

// transitKey makes a key, signs with it, and deletes it.
func (k *checker) transitKey(ctx context.Context, c Config) {
	const subject = "transit keys"
	e := probe(c, c.Member)
	var err error
	e.Public, err = makeKey(ctx, k.Caller, e)
	switch {
	case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrMalformed):
		k.Add(
			vault.Failure,
			subject,
			"cannot make a key: is a Transit secrets engine mounted at %s? `vault secrets enable -path=%s transit` "+
				"does that: %v",
			c.Mount,
			c.Mount,
			err,
		)
		return
	case errors.Is(err, vault.ErrDenied):
		k.Add(
			vault.Failure,
			subject,
			"cannot make a key in mount %s: the right for %s/keys/%s* is missing, or the mount is: %v",
			c.Mount,
			c.Mount,
			KeyPrefix(c.Prefix, c.Cluster, c.Member),
			err,
		)
		return
	case err != nil && !errors.Is(err, vault.ErrKeyKind):
		k.Add(vault.Failure, subject, "cannot make a key in mount %s: %v", c.Mount, err)
		return
	case err != nil:
		k.Add(vault.Failure, subject, "%v", err)
	default:
		k.transitSignature(ctx, c, e)
	}
	k.deleteProbe(ctx, e)
}

func (k *checker) transitSignature(ctx context.Context, c Config, e entry) {
	digest := sha256.Sum256([]byte(e.Key))
	began := time.Now()
	signature, err := signDigest(ctx, k.Caller, k.Caller.Config.Timeout, e, digest[:])
	took := time.Since(began)
	switch {
	case errors.Is(err, vault.ErrDenied):
		k.Add(
			vault.Failure,
			"transit signing",
			"cannot sign: the right for %s/sign/%s* is missing: %v",
			c.Mount,
			KeyPrefix(c.Prefix, c.Cluster, c.Member),
			err,
		)
	case err != nil:
		k.Add(vault.Failure, "transit signing", "cannot sign: %v", err)
	case !ecdsa.VerifyASN1(e.Public, digest[:], signature):
		k.Add(
			vault.Failure,
			"transit signing",
			"the signature does not verify with the key; check what stands between this machine and Vault",
		)
	case took > c.SignTimeout:
		k.Add(
			vault.Failure,
			"transit signing",
			"a signature took %v, and members wait for %v; bring Vault nearer",
			took.Round(time.Millisecond),
			c.SignTimeout,
		)
	default:
		k.Add(vault.OK, "transit signing", "a signature takes %v", took.Round(100*time.Microsecond))
	}
}

// deleteProbe deletes a probe.
func (k *checker) deleteProbe(ctx context.Context, e entry) {
	const subject = "transit keys"
	if err := deleteKey(ctx, k.Caller, e); err != nil {
		k.Add(
			vault.Failure,
			subject,
			"cannot delete the key %s, which was made for this check; keys that are done with would stay. Delete it "+
				"by hand: %v",
			e.Key,
			err,
		)
		return
	}
	switch _, err := readKey(ctx, k.Caller, e); {
	case errors.Is(err, vault.ErrKeyGone):
		k.Add(vault.OK, subject, "keys of mount %s can be made, read and deleted, and cannot leave it", e.Mount)
	case err != nil:
		k.Add(
			vault.Failure,
			subject,
			"cannot read a key, so a lost key would not be detected: %v",
			err,
		)
	default:
		k.Add(vault.Failure, subject, "the key %s is still there after it was deleted", e.Key)
	}
}

// transitLimits tries calls that the policy should deny.
func (k *checker) transitLimits(ctx context.Context, c Config) {
	const subject = "transit rights"
	tight := true
	e := probe(c, c.Member)
	_, err := k.Caller.Authorized(ctx, "check", func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		parameters := keyParameters()
		parameters["exportable"] = true
		return client.Logical().WriteWithContext(ctx, e.Mount+"/keys/"+e.Key, parameters)
	})
	if err != nil && !errors.Is(err, vault.ErrDenied) {
		tight = false
		k.Add(
			vault.Warning,
			subject,
			"whether the token could make keys that can be exported is not known, since the attempt failed "+
				"otherwise: %v",
			err,
		)
	}
	if err == nil {
		tight = false
		k.Add(
			vault.Warning,
			subject,
			"the token could make keys that can be exported, since its policies do not pin exportable; use the "+
				"output of `entente vault policy`",
		)
		if err := deleteKey(ctx, k.Caller, e); err != nil {
			k.Add(
				vault.Warning,
				subject,
				"cannot delete the key %s, which was made for this check; delete it by hand: %v",
				e.Key,
				err,
			)
		}
	}
	// A configuration refuses this member name, so no member has such a key.
	switch _, err := readKey(ctx, k.Caller, probe(c, "CHECK")); {
	case errors.Is(err, vault.ErrDenied):
	case err != nil && !errors.Is(err, vault.ErrKeyGone):
		tight = false
		k.Add(
			vault.Warning,
			subject,
			"whether the token reaches the keys of other members is not known, since the attempt failed otherwise: %v",
			err,
		)
	default:
		tight = false
		k.Add(
			vault.Warning,
			subject,
			"the token reaches the keys of other members too; give each member a policy of its own, by `entente "+
				"vault policy --transit-mount %s --cluster %s --member %s`",
			c.Mount,
			c.Cluster,
			c.Member,
		)
	}
	if tight {
		k.Add(vault.OK, subject, "the token reaches the keys of member %s and nothing else", c.Member)
	}
}
