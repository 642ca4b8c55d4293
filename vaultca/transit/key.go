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

// signingKey is a key in Transit, in the form for the authorities. It never changes.
type signingKey struct {
	store *Store
	entry entry
}

var _ crypto.Signer = (*signingKey)(nil)

// Public returns the pinned public half.
func (k *signingKey) Public() crypto.PublicKey { return k.entry.Public }

// Sign signs a SHA-256 digest in Vault. [crypto.Signer] has no context: the store bounds the time, and cancels
// signatures when it stops. The signature is in ASN.1, and verified with the pinned public half.
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

// sign makes one attempt. While signing fails, most calls fail at once, so that another member signs soon.
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
		t.suspectKey(e, err) // the watch finds out whether the key or Vault is the cause: both answer 500
		return nil, err
	}
	t.outcome(t.ctx, taskSign, err)
	return signature, err
}

// has reports whether the key is still one of this member's.
func (t *Store) has(e entry) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	key, ok := t.keys[e.Name]
	return ok && key.entry.Key == e.Key
}

// The parameters that the policy pins are strings, since Vault compares types too.
const (
	keyType    = "ecdsa-p256"
	keyVersion = "1" // there is no other: keys are replaced, never rotated
)

// keyParameters returns all parameters of making a key.
func keyParameters() map[string]any {
	return map[string]any{"type": keyType, "exportable": false, "allow_plaintext_backup": false}
}

func signDigestParameters(digest []byte) map[string]any {
	return map[string]any{
		"input": base64.StdEncoding.EncodeToString(digest), "prehashed": true, "hash_algorithm": "sha2-256",
		"marshaling_algorithm": "asn1", "key_version": keyVersion,
	}
}

// makeKey makes a key and returns its public half. It refuses a key that can leave Vault, or that existed before.
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
	if mismatch := found.mismatch(); mismatch != "" {
		return nil, fmt.Errorf("%w: %s", vault.ErrKeyKind, mismatch)
	}
	return found.public, nil
}

// proveKey signs a text without meaning with a new key, so that no authority is published that cannot sign. A node of
// Vault that is a little behind does not have the key at once, so failures are retried.
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

// readKey returns Vault's description of a key. The error wraps [vault.ErrKeyGone] if Vault has no such key; a missing
// mount is another error.
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
			case errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound && !refused.RawError &&
				len(refused.Errors) == 0:
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

// deleteKey deletes a key for good. Vault requires a first call that allows it.
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
			secret = &api.Secret{} // Vault's answer to a deletion is empty
		}
		return secret, err
	})
	return err
}

// signDigest makes one attempt to sign a digest, and a second one with a new login if Vault denies the first.
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

// keyDescription is Vault's description of a key.
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
		return keyDescription{}, fmt.Errorf("%w: %s in its description of a key", vault.ErrMalformed, what)
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
			d.public, _ = parsePublic(block.Bytes) // a key that is not on P-256 counts as missing
		}
	}
	return d, nil
}

// is reports whether version 1 of the key has that public half.
func (d keyDescription) is(public *ecdsa.PublicKey) bool {
	return d.public != nil && public.Equal(d.public)
}

// mismatch describes how a new key differs from the request, or returns "".
func (d keyDescription) mismatch() string {
	switch {
	case d.kind != keyType || d.public == nil:
		return fmt.Sprintf("it is of type %q and not %q", d.kind, keyType)
	case d.versions != 1:
		return "it was there before"
	case d.imported:
		return "it was imported, so others may hold a copy of it"
	}
	return d.leaky()
}

// leaky describes how the key could have left Vault, or returns "".
func (d keyDescription) leaky() string {
	switch {
	case d.exportable:
		return "it can be exported"
	case d.backup:
		return "it can be, or was, backed up or restored"
	}
	return ""
}
