package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	aeadwrapper "github.com/hashicorp/go-kms-wrapping/wrappers/aead/v2"
	jwtauth "github.com/hashicorp/vault-plugin-auth-jwt"
	kubeauth "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/builtin/credential/approle"
	certauth "github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/command/server"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
	vaultseal "github.com/hashicorp/vault/vault/seal"
)

var (
	secretEngines = map[string]logical.Factory{"pki": pki.Factory, "transit": transit.Factory}
	authMethods   = map[string]logical.Factory{
		"approle": approle.Factory, "cert": certauth.Factory, "jwt": jwtauth.Factory, "kubernetes": kubeauth.Factory,
	}
)

// registry is the list of built-in plugins: the factories above and nothing else.
type registry struct{}

func (registry) factories(kind consts.PluginType) map[string]logical.Factory {
	switch kind {
	case consts.PluginTypeSecrets:
		return secretEngines
	case consts.PluginTypeCredential:
		return authMethods
	}
	return nil
}

func (r registry) Contains(name string, kind consts.PluginType) bool {
	_, ok := r.factories(kind)[name]
	return ok
}

func (r registry) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	factory, ok := r.factories(kind)[name]
	return func() (any, error) { return factory, nil }, ok
}

func (r registry) Keys(kind consts.PluginType) []string {
	var names []string
	for name := range r.factories(kind) {
		names = append(names, name)
	}
	return names
}

func (r registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, kind)
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

// vaultServer is one Vault over one storage, which outlives its core.
type vaultServer struct {
	storage   physical.Backend
	address   string
	identity  identity
	rootToken string
	unsealKey []byte

	core *vault.Core
	http *http.Server
}

func newServer() (*vaultServer, error) {
	storage, err := inmem.NewInmem(nil, hclog.NewNullLogger())
	if err != nil {
		return nil, err
	}
	s := &vaultServer{storage: storage, address: "127.0.0.1:0"}
	if s.identity, err = newIdentity(); err != nil {
		return nil, err
	}
	if err := s.newCore(); err != nil {
		return nil, err
	}
	ctx := context.Background()
	one := &vault.SealConfig{Type: "shamir", SecretShares: 1, SecretThreshold: 1}
	made, err := s.core.Initialize(ctx, &vault.InitParams{BarrierConfig: one, RecoveryConfig: &vault.SealConfig{}})
	if err != nil {
		return nil, fmt.Errorf("initialize: %w", err)
	}
	s.rootToken, s.unsealKey = made.RootToken, made.SecretShares[0]
	if err := s.unseal(); err != nil {
		return nil, err
	}
	return s, s.listen()
}

func (s *vaultServer) newCore() error {
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Error})
	access, err := vaultseal.NewAccessFromWrapper(logger, aeadwrapper.NewShamirWrapper(), "shamir")
	if err != nil {
		return err
	}
	s.core, err = vault.NewCore(&vault.CoreConfig{
		Physical: s.storage, StorageType: "inmem", Seal: vault.NewDefaultSeal(access),
		LogicalBackends: secretEngines, CredentialBackends: authMethods, BuiltinRegistry: registry{},
		RawConfig: &server.Config{SharedConfig: &configutil.SharedConfig{}},
		Logger:    logger, DisableMlock: true, DisableCache: true,
		DefaultLeaseTTL: 24 * time.Hour, MaxLeaseTTL: 10 * 365 * 24 * time.Hour,
	})
	if err != nil {
		return fmt.Errorf("make a core: %w", err)
	}
	return nil
}

func (s *vaultServer) unseal() error {
	open, err := s.core.Unseal(s.unsealKey)
	if err == nil && !open {
		err = errors.New("still sealed")
	}
	if err != nil {
		return fmt.Errorf("unseal: %w", err)
	}
	return nil
}

// listen serves on the address of the first time, so that clients find a restarted server.
func (s *vaultServer) listen() error {
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		return err
	}
	s.address = l.Addr().String()
	s.http = &http.Server{
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core: s.core, ListenerConfig: &configutil.Listener{Type: "tcp", Address: s.address},
		}),
		// The cert auth method reads the caller's certificate from the connection, and checks it itself.
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{s.identity.leaf},
			ClientAuth:   tls.RequestClientCert,
		},
		ReadHeaderTimeout: time.Minute, ErrorLog: log.New(discard{}, "", 0),
	}
	serving := s.http
	go func() {
		if err := serving.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "vaultdev: serve:", err)
		}
	}()
	return nil
}

// discard drops the complaints about handshakes that tests break on purpose.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func (s *vaultServer) obey(line string) error {
	switch line {
	case "stop":
		return s.stop()
	case "start":
		return s.start()
	case "restart":
		if err := s.stop(); err != nil {
			return err
		}
		return s.start()
	case "renew":
		identity, err := s.identity.renewed()
		if err != nil {
			return err
		}
		return s.present(identity)
	case "reissue":
		identity, err := newIdentity()
		if err != nil {
			return err
		}
		return s.present(identity)
	}
	return fmt.Errorf("unknown line %q; one of stop, start, restart, renew, reissue", line)
}

// present has the listener present another certificate.
func (s *vaultServer) present(i identity) error {
	s.identity = i
	if err := s.http.Close(); err != nil {
		return err
	}
	return s.listen()
}

func (s *vaultServer) stop() error {
	if s.core == nil {
		return nil
	}
	core := s.core
	s.core = nil
	if err := s.http.Close(); err != nil {
		return err
	}
	return core.Shutdown()
}

func (s *vaultServer) start() error {
	if s.core != nil {
		return errors.New("it is running")
	}
	if err := s.newCore(); err != nil {
		return err
	}
	if err := s.unseal(); err != nil {
		return err
	}
	return s.listen()
}

func (s *vaultServer) describe() answer {
	return answer{
		Address: "https://" + s.address, RootToken: s.rootToken, UnsealKey: hex.EncodeToString(s.unsealKey),
		CA: string(s.identity.ca),
	}
}
