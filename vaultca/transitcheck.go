package vaultca

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/hashicorp/vault/api"
)

// CheckTransit tries out what keys in Transit need of Vault: it makes a key, signs with it and deletes it, and asks for
// what the policy should deny. It changes nothing else.
func CheckTransit(ctx context.Context, c TransitConfig) []Finding {
	k := &checker{}
	if err := c.Validate(); err != nil {
		k.add(Failure, "configuration", "%v", err)
		return k.findings
	}
	c = c.withDefaults()
	if !k.prepare(c.Vault) {
		return k.findings
	}
	defer k.caller.transport.CloseIdleConnections()
	s, _, err := k.caller.session(ctx)
	if err != nil {
		k.add(Failure, "login", "%v", err)
		return k.findings
	}
	k.login(ctx, s)
	k.transitKey(ctx, c)
	k.transitLimits(ctx, c)
	return k.findings
}

// probe is a key that this check makes and nobody else uses.
func probe(c TransitConfig, member string) entry {
	return entry{Name: "check", Mount: c.Mount, Key: KeyPrefix(c.Prefix, c.Cluster, member) + "check-" + chance()}
}

// transitKey makes a key, signs with it, and deletes it.
func (k *checker) transitKey(ctx context.Context, c TransitConfig) {
	const subject = "transit keys"
	e := probe(c, c.Member)
	var err error
	e.Public, err = k.caller.makeKey(ctx, e)
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrMalformed):
		k.add(Failure, subject, "cannot make a key: is a Transit secrets engine mounted at %s? `vault secrets enable -path=%s transit` does that: %v", c.Mount, c.Mount, err)
		return
	case errors.Is(err, ErrDenied):
		k.add(Failure, subject, "cannot make a key in mount %s: the right for %s/keys/%s* is missing, or the mount is: %v", c.Mount, c.Mount, KeyPrefix(c.Prefix, c.Cluster, c.Member), err)
		return
	case err != nil && !errors.Is(err, ErrKeyKind):
		k.add(Failure, subject, "cannot make a key in mount %s: %v", c.Mount, err)
		return
	case err != nil:
		k.add(Failure, subject, "%v", err)
	default:
		k.transitSignature(ctx, c, e)
	}
	k.bury(ctx, e)
}

func (k *checker) transitSignature(ctx context.Context, c TransitConfig, e entry) {
	digest := sha256.Sum256([]byte(e.Key))
	began := time.Now()
	signature, err := k.caller.signDigest(ctx, k.config.Timeout, e, digest[:])
	took := time.Since(began)
	switch {
	case errors.Is(err, ErrDenied):
		k.add(Failure, "transit signing", "cannot sign: the right for %s/sign/%s* is missing: %v", c.Mount, KeyPrefix(c.Prefix, c.Cluster, c.Member), err)
	case err != nil:
		k.add(Failure, "transit signing", "cannot sign: %v", err)
	case !ecdsa.VerifyASN1(e.Public, digest[:], signature):
		k.add(Failure, "transit signing", "the signature does not verify with the key; check what stands between this machine and Vault")
	case took > c.SignTimeout:
		k.add(Failure, "transit signing", "a signature took %v, and members wait for %v; bring Vault nearer", took.Round(time.Millisecond), c.SignTimeout)
	default:
		k.add(OK, "transit signing", "a signature takes %v", took.Round(100*time.Microsecond))
	}
}

// bury deletes a probe.
func (k *checker) bury(ctx context.Context, e entry) {
	const subject = "transit keys"
	if err := k.caller.deleteKey(ctx, e); err != nil {
		k.add(Failure, subject, "cannot delete the key %s, which was made for this check; keys that are done with would stay. Delete it by hand: %v", e.Key, err)
		return
	}
	switch _, err := k.caller.readKey(ctx, e); {
	case errors.Is(err, ErrKeyGone):
		k.add(OK, subject, "keys of mount %s can be made, looked at and deleted, and cannot leave it", e.Mount)
	case err != nil:
		k.add(Failure, subject, "cannot look whether a key is there, so that a lost one would not be found out: %v", err)
	default:
		k.add(Failure, subject, "the key %s is still there after it was deleted", e.Key)
	}
}

// transitLimits asks for what the policy should deny.
func (k *checker) transitLimits(ctx context.Context, c TransitConfig) {
	const subject = "transit rights"
	tight := true
	e := probe(c, c.Member)
	_, err := k.caller.authorized(ctx, "check", func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		parameters := keyParameters()
		parameters["exportable"] = true
		return client.Logical().WriteWithContext(ctx, e.Mount+"/keys/"+e.Key, parameters)
	})
	if err == nil {
		tight = false
		k.add(Warning, subject, "the token could make keys that can be exported, since its policies do not pin exportable; use the output of `entente vault policy`")
		if err := k.caller.deleteKey(ctx, e); err != nil {
			k.add(Warning, subject, "cannot delete the key %s, which was made for this check; delete it by hand: %v", e.Key, err)
		}
	}
	// No member has this name, for it is refused in a configuration: nobody's key is asked for.
	if _, err := k.caller.readKey(ctx, probe(c, "CHECK")); !errors.Is(err, ErrDenied) {
		tight = false
		k.add(Warning, subject, "the token reaches the keys of other members too; give each member a policy of its own, by `entente vault policy --transit-mount %s --cluster %s --member %s`", c.Mount, c.Cluster, c.Member)
	}
	if tight {
		k.add(OK, subject, "the token reaches the keys of member %s and nothing else", c.Member)
	}
}
