package transit

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/vault/api"

	"github.com/ententehq/entente/vaultca/vault"
)

// signingKey is a key in Transit, as the authorities use it. It is never changed.
type signingKey struct {
	store *Store
	entry entry
}

var _ crypto.Signer = (*signingKey)(nil)

// Public is the pinned half.
func (k *signingKey) Public() crypto.PublicKey { return k.entry.Public }

// Sign has Vault sign a SHA-256 digest. [crypto.Signer] has no context: the store bounds the time, and ends what is
// under way when it ends itself. The signature is in ASN.1, and has been verified with the pinned half.
func (k *signingKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return nil, fmt.Errorf("key %s signs SHA-256 digests alone", k.entry.Name)
	}
	t := k.store
	signature, err := t.sign(k.entry, digest)
	if err != nil {
		return nil, fmt.Errorf("sign with key %s in Vault's Transit: %w", k.entry.Name, err)
	}
	return signature, nil
}

// sign makes one attempt. While signing fails most of those who want a signature are told at once, so that they get it
// from another member soon.
func (t *Store) sign(e entry, digest []byte) ([]byte, error) {
	if !t.has(e) {
		return nil, vault.ErrKeyGone
	}
	leave, err := t.health.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	waiting := time.NewTimer(t.config.SignTimeout / 4)
	defer waiting.Stop()
	select {
	case t.signing <- struct{}{}:
		defer func() { <-t.signing }()
	case <-t.ctx.Done():
		return nil, context.Cause(t.ctx)
	case <-waiting.C:
		return nil, fmt.Errorf("%w: %d signatures are under way already, which is the limit", vault.ErrBusy, maxSigning)
	}
	ctx, cancel := context.WithTimeoutCause(
		t.ctx,
		t.config.SignTimeout,
		fmt.Errorf("%w: no signature within %v", vault.ErrUnreachable, t.config.SignTimeout),
	)
	defer cancel()
	signature, err := signDigest(ctx, t.caller, t.config.SignTimeout, e, digest)
	if err == nil && !ecdsa.VerifyASN1(e.Public, digest, signature) {
		err = fmt.Errorf("%w: the signature does not verify with it", vault.ErrKeyChanged)
	}
	switch {
	case err == nil:
	case errors.Is(err, vault.ErrRejected),
		errors.Is(err, vault.ErrNotFound),
		errors.Is(err, vault.ErrKeyChanged),
		errors.Is(err, vault.ErrServer):
		t.suspectKey(e, err) // whether it is the key or Vault is found out beside: 500 is its answer to both
		return nil, err
	}
	t.outcome(t.ctx, taskSign, err)
	return signature, err
}

// has says whether the key is still one of this member's.
func (t *Store) has(e entry) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	key, ok := t.keys[e.Name]
	return ok && key.entry.Key == e.Key
}

// The parameters of calls are texts where the policy pins them, since Vault compares types too.
const (
	keyType    = "ecdsa-p256"
	keyVersion = "1" // there is no other: keys are replaced, never rotated
)

// keyParameters are all that is sent to make a key.
func keyParameters() map[string]any {
	return map[string]any{"type": keyType, "exportable": false, "allow_plaintext_backup": false}
}

func signDigestParameters(digest []byte) map[string]any {
	return map[string]any{
		"input": base64.StdEncoding.EncodeToString(digest), "prehashed": true, "hash_algorithm": "sha2-256",
		"marshaling_algorithm": "asn1", "key_version": keyVersion,
	}
}

// makeKey makes a key and returns its public half. One that can leave Vault, or that was there before, is refused.
func makeKey(ctx context.Context, c *vault.Caller, e entry) (*ecdsa.PublicKey, error) {
	secret, err := c.Authorized(
		ctx,
		"transit_create",
		func(ctx context.Context, client *api.Client) (*api.Secret, error) {
			return client.Logical().WriteWithContext(ctx, e.Mount+"/keys/"+e.Key, keyParameters())
		},
	)
	if err != nil {
		return nil, err
	}
	found, err := describeKey(secret)
	if err != nil {
		return nil, err
	}
	if wrong := found.wrong(); wrong != "" {
		return nil, fmt.Errorf("%w: %s", vault.ErrKeyKind, wrong)
	}
	return found.public, nil
}

// proveKey has something without meaning signed with a new key, so that no authority is published that cannot sign. A
// node of Vault's that is a little behind does not know the key at once: it is asked again.
func proveKey(ctx context.Context, c *vault.Caller, e entry) error {
	digest := sha256.Sum256([]byte("proof of key " + e.Key))
	_, err := backoff.Retry(ctx, func() (bool, error) {
		signature, err := signDigest(ctx, c, c.Config.Timeout, e, digest[:])
		switch {
		case err == nil && !ecdsa.VerifyASN1(e.Public, digest[:], signature):
			return false, backoff.Permanent(
				fmt.Errorf("%w: its first signature does not verify with it", vault.ErrKeyChanged),
			)
		case err != nil && !vault.Transient(err) && !errors.Is(err, vault.ErrRejected):
			return false, backoff.Permanent(err)
		}
		return err == nil, err
	}, backoff.WithBackOff(vault.Pauses(c.Config.RetryFor/4)), backoff.WithMaxElapsedTime(c.Config.RetryFor))
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		err = permanent.Err
	}
	return err
}

// readKey returns what Vault says of a key; [ErrKeyGone] is wrapped when it says that there is none, which is not said
// of a mount that is missing.
func readKey(ctx context.Context, c *vault.Caller, e entry) (keyDescription, error) {
	secret, err := c.Authorized(
		ctx,
		"transit_read",
		func(ctx context.Context, client *api.Client) (*api.Secret, error) {
			response, err := client.Logical().ReadRawWithDataWithContext(ctx, e.Mount+"/keys/"+e.Key, nil)
			if response != nil {
				defer response.Body.Close()
			}
			var refused *api.ResponseError
			switch {
			case errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound && !refused.RawError && len(refused.Errors) == 0:
				return nil, vault.ErrKeyGone
			case err != nil:
				return nil, err
			}
			return api.ParseSecret(response.Body)
		},
	)
	if err != nil {
		return keyDescription{}, err
	}
	return describeKey(secret)
}

// deleteKey deletes a key for good. Vault wants to be told first that this is meant.
func deleteKey(ctx context.Context, c *vault.Caller, e entry) error {
	_, err := c.Authorized(ctx, "transit_delete", func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		return client.Logical().
			WriteWithContext(ctx, e.Mount+"/keys/"+e.Key+"/config", map[string]any{"deletion_allowed": true})
	})
	if err != nil {
		return err
	}
	_, err = c.Authorized(ctx, "transit_delete", func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		secret, err := client.Logical().DeleteWithContext(ctx, e.Mount+"/keys/"+e.Key)
		if err == nil && secret == nil {
			secret = &api.Secret{} // so Vault says that it is done
		}
		return secret, err
	})
	return err
}

// signDigest makes one attempt to have a digest signed, and a second one with a new login if Vault denies the first.
func signDigest(ctx context.Context, c *vault.Caller, timeout time.Duration, e entry, digest []byte) ([]byte, error) {
	sign := func(s *vault.Session) (*api.Secret, error) {
		return c.Within(
			ctx,
			timeout,
			"transit_sign",
			s.Client,
			func(ctx context.Context, client *api.Client) (*api.Secret, error) {
				return client.Logical().WriteWithContext(ctx, e.Mount+"/sign/"+e.Key, signDigestParameters(digest))
			},
		)
	}
	s, fresh, err := c.Session(ctx)
	if err != nil {
		return nil, err
	}
	secret, err := sign(s)
	if errors.Is(err, vault.ErrDenied) && !fresh {
		c.Drop(s)
		if s, _, err = c.Session(ctx); err != nil {
			return nil, err
		}
		secret, err = sign(s)
	}
	if err != nil {
		return nil, err
	}
	return parseSignature(secret)
}

// maxSignature is above any signature on P-256 in ASN.1.
const maxSignature = 80

// parseSignature reads "vault:v1:BASE64".
func parseSignature(secret *api.Secret) ([]byte, error) {
	text, ok := secret.Data["signature"].(string)
	if !ok {
		return nil, fmt.Errorf("%w: no signature in the answer", vault.ErrMalformed)
	}
	encoded, ok := strings.CutPrefix(text, "vault:v"+keyVersion+":")
	if !ok {
		if strings.HasPrefix(text, "vault:v") {
			return nil, fmt.Errorf("%w: the answer is from another version of it", vault.ErrKeyChanged)
		}
		return nil, fmt.Errorf("%w: what stands for the signature is none", vault.ErrMalformed)
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(signature) == 0 || len(signature) > maxSignature {
		return nil, fmt.Errorf("%w: what stands for the signature is none", vault.ErrMalformed)
	}
	return signature, nil
}

// keyDescription is what Vault says of a key.
type keyDescription struct {
	kind       string
	public     *ecdsa.PublicKey // of version 1; nil if there is none on P-256
	versions   int
	exportable bool
	backup     bool // in plain text, or one that was made or restored
	imported   bool
}

func describeKey(secret *api.Secret) (keyDescription, error) {
	malformed := func(what string) (keyDescription, error) {
		return keyDescription{}, fmt.Errorf("%w: %s in what it says of a key", vault.ErrMalformed, what)
	}
	data := secret.Data
	kind, ok := data["type"].(string)
	if !ok {
		return malformed("no type")
	}
	d := keyDescription{kind: kind}
	var flags [2]bool
	for i, name := range []string{"exportable", "allow_plaintext_backup"} {
		if flags[i], ok = data[name].(bool); !ok {
			return malformed("no " + name)
		}
	}
	d.exportable, d.backup = flags[0], flags[1] || data["backup_info"] != nil || data["restore_info"] != nil
	d.imported, _ = data["imported_key"].(bool)
	latest, ok := data["latest_version"].(json.Number)
	if !ok {
		return malformed("no latest_version")
	}
	versions, err := latest.Int64()
	if err != nil || versions < 1 {
		return malformed("a strange latest_version")
	}
	d.versions = int(versions)
	keys, ok := data["keys"].(map[string]any)
	if !ok {
		return malformed("no keys")
	}
	first, _ := keys[keyVersion].(map[string]any)
	if text, ok := first["public_key"].(string); ok {
		if block, rest := pem.Decode([]byte(text)); block != nil && len(rest) == 0 {
			d.public, _ = parsePublic(block.Bytes) // what is no key on P-256 is none
		}
	}
	return d, nil
}

// is says whether version 1 of the key has that public half.
func (d keyDescription) is(public *ecdsa.PublicKey) bool {
	return d.public != nil && public.Equal(d.public)
}

// wrong says in what a key that was just made is not what was asked for; empty if in nothing.
func (d keyDescription) wrong() string {
	switch {
	case d.kind != keyType || d.public == nil:
		return fmt.Sprintf("it is of type %q and not %q", d.kind, keyType)
	case d.versions != 1:
		return "it was there before"
	case d.imported:
		return "it was imported, so that somebody else has it"
	}
	return d.leaky()
}

// leaky says how the key could have left Vault; empty if in no way.
func (d keyDescription) leaky() string {
	switch {
	case d.exportable:
		return "it can be exported"
	case d.backup:
		return "it can be, or was, backed up or restored"
	}
	return ""
}
