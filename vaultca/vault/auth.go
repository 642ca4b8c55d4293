package vault

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hashicorp/vault/api"
)

// Auth is a way to log in to Vault: [Token], [AppRole], [Kubernetes] or [Certificate].
type Auth interface {
	// Method returns Vault's name of the auth method.
	Method() string

	validate() error
	// checkFiles reads what a login needs of this machine.
	checkFiles() error
	// login returns a secret with its Auth set. The client has no token.
	login(ctx context.Context, c *api.Client) (*api.Secret, error)
}

// Token uses an existing token. It is renewed for as long as Vault allows, and then read again.
type Token struct{ Token Secret }

// AppRole logs in with a role id and a secret id.
type AppRole struct {
	Mount            string // if empty, approle
	RoleID, SecretID Secret
}

// Kubernetes logs in with the token of a service account, which is read from its file at each login.
type Kubernetes struct {
	Mount     string // if empty, kubernetes
	Role      string
	TokenFile string // if empty, the path of Kubernetes
}

// Certificate logs in with a TLS client certificate, which is read from its files at each connection.
type Certificate struct {
	Mount             string // if empty, cert
	Role              string // if empty, Vault selects one
	CertFile, KeyFile string
}

const (
	serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	// maxSecretBytes is far above any secret, key or certificate chain.
	maxSecretBytes = 64 << 10
	// maxRootsBytes bounds a file of roots: the public ones of a distribution with a company's own have some 200 KiB,
	// and bundles of clusters more than a megabyte.
	maxRootsBytes = 8 << 20
)

// Method implements [Auth].
func (Token) Method() string { return "token" }

// Method implements [Auth].
func (AppRole) Method() string { return "approle" }

// Method implements [Auth].
func (Kubernetes) Method() string { return "kubernetes" }

// Method implements [Auth].
func (Certificate) Method() string { return "cert" }

func (a Token) validate() error {
	if a.Token == nil {
		return errors.New("auth \"token\" needs a token")
	}
	return nil
}

func (a AppRole) validate() error {
	if a.RoleID == nil || a.SecretID == nil {
		return errors.New("auth \"approle\" needs role_id and secret_id")
	}
	return checkAuthMount(a.Mount)
}

func (a Kubernetes) validate() error {
	if a.Role == "" {
		return errors.New("auth \"kubernetes\" needs a role")
	}
	return checkAuthMount(a.Mount)
}

func (a Certificate) validate() error {
	if a.CertFile == "" || a.KeyFile == "" {
		return errors.New("auth \"cert\" needs cert_file and key_file")
	}
	return checkAuthMount(a.Mount)
}

func (a Token) checkFiles() error {
	_, err := read("the token", a.Token)
	return err
}

func (a AppRole) checkFiles() error {
	_, err := read("role_id", a.RoleID)
	_, errSecret := read("secret_id", a.SecretID)
	return errors.Join(err, errSecret)
}

func (a Kubernetes) checkFiles() error {
	_, err := a.token()
	return err
}

func (a Certificate) checkFiles() error {
	_, err := a.certificate()
	return err
}

func checkAuthMount(mount string) error {
	if mount == "" {
		return nil
	}
	return CheckPath("mount of the auth method", mount)
}

func (a Token) login(ctx context.Context, c *api.Client) (*api.Secret, error) {
	token, err := read("the token", a.Token)
	if err != nil {
		return nil, err
	}
	c.SetToken(token)
	found, err := c.Auth().Token().LookupSelfWithContext(ctx)
	if err != nil {
		return nil, err
	}
	if found == nil || found.Data["ttl"] == nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, errNoAnswer)
	}
	ttl, err := found.TokenTTL()
	if err != nil {
		return nil, fmt.Errorf("%w: lifetime of the token: %w", ErrMalformed, err)
	}
	renewable, err := found.TokenIsRenewable()
	if err != nil {
		return nil, fmt.Errorf("%w: whether the token is renewable: %w", ErrMalformed, err)
	}
	return &api.Secret{
		Auth: &api.SecretAuth{ClientToken: token, LeaseDuration: int(ttl.Seconds()), Renewable: renewable},
	}, nil
}

func (a AppRole) login(ctx context.Context, c *api.Client) (*api.Secret, error) {
	role, err := read("role_id", a.RoleID)
	if err != nil {
		return nil, err
	}
	secret, err := read("secret_id", a.SecretID)
	if err != nil {
		return nil, err
	}
	return write(ctx, c, a.Mount, a.Method(), map[string]any{"role_id": role, "secret_id": secret})
}

func (a Kubernetes) login(ctx context.Context, c *api.Client) (*api.Secret, error) {
	jwt, err := a.token()
	if err != nil {
		return nil, err
	}
	return write(ctx, c, a.Mount, a.Method(), map[string]any{"role": a.Role, "jwt": jwt})
}

// token reads the token of the service account.
func (a Kubernetes) token() (string, error) {
	raw, err := ReadFile(cmp.Or(a.TokenFile, serviceAccountToken))
	return strings.TrimSpace(string(raw)), err
}

func (a Certificate) login(ctx context.Context, c *api.Client) (*api.Secret, error) {
	body := map[string]any{}
	if a.Role != "" {
		body["name"] = a.Role
	}
	return write(ctx, c, a.Mount, a.Method(), body)
}

// certificate returns the client certificate for Vault.
func (a Certificate) certificate() (*tls.Certificate, error) {
	chain, err := ReadFile(a.CertFile)
	if err != nil {
		return nil, err
	}
	key, err := ReadFile(a.KeyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate %s with key %s: %w", ErrSecret, a.CertFile, a.KeyFile, err)
	}
	return &pair, nil
}

func write(ctx context.Context, c *api.Client, mount, method string, body map[string]any) (*api.Secret, error) {
	if mount == "" {
		mount = method
	}
	return c.Logical().WriteWithContext(ctx, "auth/"+mount+"/login", body)
}

func read(what string, secret Secret) (string, error) {
	value, err := secret()
	if err == nil && value == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrSecret, what, err)
	}
	return value, nil
}

// ReadFile returns the content of a file of bounded size that the login needs. Its errors wrap [ErrSecret].
func ReadFile(path string) ([]byte, error) { return readFile(path, maxSecretBytes) }

func readFile(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSecret, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrSecret, err)
	case int64(len(raw)) > most:
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", ErrSecret, path, most)
	}
	return raw, nil
}
