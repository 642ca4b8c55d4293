package transit

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/vaultca/vault"
)

// Wrapper is a [keys.Wrapper] with a key in Vault's Transit engine, one for each member. The key cannot leave Vault,
// and the rights of a member do not reach those of others. Rotating it in Vault is enough: the data key is wrapped with
// the newest version the next time.
type Wrapper struct {
	config Config
	caller *vault.Caller
	shared bool
}

var _ keys.Wrapper = (*Wrapper)(nil)

// wrappingKeyType is AES-256 in GCM, whose associated data binds the data key to its member.
const wrappingKeyType = "aes256-gcm96"

// wrappingWord ends the name of a member's wrapping key. It is in capitals, as keyWord is.
const wrappingWord = "-WRAP"

// WrappingKey returns the name of a member's wrapping key in the mount.
func WrappingKey(prefix, cluster, member string) string {
	return strings.TrimSuffix(KeyPrefix(prefix, cluster, member), keyWord) + wrappingWord
}

// OpenWrapper makes no call yet: a member starts while Vault is sealed. The wrapper shares the login of shared. If
// shared is nil, it logs in by itself, and [Wrapper.Run] keeps the login alive.
func OpenWrapper(c Config, shared *vault.Caller) (*Wrapper, error) {
	if shared != nil {
		c.Vault = shared.Config
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	w := &Wrapper{config: c.withDefaults(), caller: shared, shared: shared != nil}
	if shared == nil {
		var err error
		if w.caller, err = vault.Open(w.config.Vault); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Run keeps the login alive until ctx ends.
func (w *Wrapper) Run(ctx context.Context) error {
	if w.shared {
		<-ctx.Done()
		return ctx.Err()
	}
	defer w.caller.Close()
	return w.caller.Keep(ctx)
}

func (w *Wrapper) key() string {
	return WrappingKey(w.config.Prefix, w.config.Cluster, w.config.Member)
}

// ID returns the mount and the name of the key.
func (w *Wrapper) ID() string { return "vault_transit:" + w.config.Mount + "/" + w.key() }

// Remote returns true.
func (w *Wrapper) Remote() bool { return true }

// Wrap implements [keys.Wrapper]. It makes the wrapping key if there is none.
func (w *Wrapper) Wrap(ctx context.Context, dataKey, bound []byte) ([]byte, error) {
	wrapped, err := w.encrypt(ctx, dataKey, bound)
	if !errors.Is(err, vault.ErrDenied) && !errors.Is(err, vault.ErrRejected) && !errors.Is(err, vault.ErrNotFound) {
		return wrapped, err
	}
	// Vault denies an encryption with a key that does not exist, since that would make the key. Making one that exists
	// changes nothing.
	if _, err := w.write(ctx, "transit_create", "keys", map[string]any{
		"type": wrappingKeyType, "exportable": false, "allow_plaintext_backup": false,
	}); err != nil {
		return nil, fmt.Errorf("make wrapping key %s: %w", w.key(), err)
	}
	return w.encrypt(ctx, dataKey, bound)
}

func (w *Wrapper) encrypt(ctx context.Context, dataKey, bound []byte) ([]byte, error) {
	secret, err := w.write(ctx, "transit_encrypt", "encrypt", map[string]any{
		"plaintext":       base64.StdEncoding.EncodeToString(dataKey),
		"associated_data": base64.StdEncoding.EncodeToString(bound),
	})
	if err != nil {
		return nil, err
	}
	text, ok := secret.Data["ciphertext"].(string)
	if !ok || !strings.HasPrefix(text, "vault:v") || len(text) > maxWrapped {
		return nil, fmt.Errorf("%w: what stands for the ciphertext is none", vault.ErrMalformed)
	}
	return []byte(text), nil
}

// maxWrapped is above any wrapped data key.
const maxWrapped = 1024

// Unwrap implements [keys.Wrapper].
func (w *Wrapper) Unwrap(ctx context.Context, wrapped, bound []byte) ([]byte, error) {
	secret, err := w.write(ctx, "transit_decrypt", "decrypt", map[string]any{
		"ciphertext": string(wrapped), "associated_data": base64.StdEncoding.EncodeToString(bound),
	})
	if err != nil {
		return nil, err
	}
	text, _ := secret.Data["plaintext"].(string)
	dataKey, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: what stands for the plaintext is none", vault.ErrMalformed)
	}
	return dataKey, nil
}

func (w *Wrapper) write(
	ctx context.Context, operation, verb string, parameters map[string]any,
) (*api.Secret, error) {
	return w.caller.Authorized(ctx, operation, func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		return client.Logical().WriteWithContext(ctx, w.config.Mount+"/"+verb+"/"+w.key(), parameters)
	})
}

// wrappingRights returns exactly the rights that a [Wrapper] uses.
func wrappingRights(p PolicyFor) []vault.Right {
	key := WrappingKey(p.Prefix, p.Cluster, p.Member)
	if p.Member == "" {
		key = KeyPrefix(p.Prefix, p.Cluster, "") + "*"
	}
	return []vault.Right{
		{
			Path: p.Mount + "/keys/" + key, Capabilities: `"update"`,
			Why: "Make the key that wraps the data key of the signing keys on disk. It cannot leave Vault.",
			Allowed: []string{
				fmt.Sprintf(`"type"                   = [%q]`, wrappingKeyType),
				`"exportable"             = [false]`,
				`"allow_plaintext_backup" = [false]`,
			},
		},
		{
			Path: p.Mount + "/encrypt/" + key, Capabilities: `"update"`, Why: "Wrap the data key.",
			Allowed: []string{`"plaintext"       = []`, `"associated_data" = []`},
		},
		{
			Path: p.Mount + "/decrypt/" + key, Capabilities: `"update"`, Why: "Unwrap it when the member starts.",
			Allowed: []string{`"ciphertext"      = []`, `"associated_data" = []`},
		},
	}
}

// CheckWrapping wraps and unwraps a key without meaning, with the member's wrapping key, which it makes if there is
// none.
func CheckWrapping(ctx context.Context, c Config) []vault.Finding {
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
	const subject = "transit wrapping"
	w := &Wrapper{config: c, caller: k.Caller, shared: true}
	probe, bound := []byte("a key without a meaning, 32 bytes"), []byte("entente vault check")
	wrapped, err := w.Wrap(ctx, probe, bound)
	if err != nil {
		k.Add(vault.Failure, subject, "cannot wrap with %s: is a Transit secrets engine mounted at %s, and does the "+
			"token have the rights that `entente vault policy --config` prints? %v", w.ID(), c.Mount, err)
		return k.Findings
	}
	switch unwrapped, err := w.Unwrap(ctx, wrapped, bound); {
	case err != nil:
		k.Add(vault.Failure, subject, "cannot unwrap with %s, so that a member could not sign after a restart: %v",
			w.ID(), err)
	case string(unwrapped) != string(probe):
		k.Add(vault.Failure, subject, "%s unwraps to something else; check what stands between this machine and Vault",
			w.ID())
	default:
		k.Add(vault.OK, subject, "%s wraps and unwraps", w.ID())
	}
	return k.Findings
}
