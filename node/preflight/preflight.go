// Package preflight reads what a configuration names outside of its file: certificates, keys, tokens and roots, in
// files and in the environment.
//
// [Check] reads all of it and reports every mistake at once. A member calls it when it starts, and `entente validate`
// calls it without a start. [JoinToken], [WrappingKey] and [ExternalAccount] return single values, for the parts of a
// member that use them. [Warnings] names what a member starts without, such as a login to Vault.
//
// Nothing here opens a connection or writes a file.
package preflight

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/bundle/webcert"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/raftstore/membership/join"
)

// Check returns everything outside of the configuration file for which a member would not start.
func Check(cfg *config.Config) error {
	var errs []error
	if cfg.Join != nil && !belongs(cfg) {
		_, err := JoinToken(cfg.Join)
		errs = append(errs, err)
	}
	switch e := cfg.BundleEndpoint; {
	case e.ACME != nil:
		_, err := Roots(e.ACME)
		_, errKey := ExternalAccount(e.ACME)
		errs = append(errs, err, errKey)
	case e.Profile == config.ProfileWeb:
		_, err := webCertificate(e)
		errs = append(errs, err)
	}
	_, _, err := webRoots(cfg.BundleEndpoint, time.Time{}) // an expired one is a warning
	errs = append(errs, err)
	for _, one := range cfg.Authority.Encryption {
		if one.Transit == nil {
			_, err := WrappingKey(one.Key)
			errs = append(errs, err)
		}
	}
	if t := cfg.Telemetry.Traces; t != nil {
		_, err := TraceRoots(t)
		errs = append(errs, err)
		if t.Authorization != nil {
			if _, err := t.Authorization.Read(); err != nil {
				errs = append(errs, fmt.Errorf("telemetry.traces.authorization: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

// belongs reports whether the data folder holds the log of a member, which then uses no join block.
func belongs(cfg *config.Config) bool {
	_, err := os.Stat(filepath.Join(cfg.Member.DataDir, "raft"))
	return err == nil
}

// JoinToken reads the token by which a member joins a cluster.
func JoinToken(j *config.Join) (join.Token, error) {
	text, err := j.Token.Read()
	if err != nil {
		return join.Token{}, fmt.Errorf("join.token: %w", err)
	}
	token, err := join.ParseToken(text)
	if err != nil {
		return join.Token{}, fmt.Errorf("join.token: %w", err)
	}
	return token, nil
}

// WrappingKey reads a key on this machine that encrypts signing keys.
func WrappingKey(secret config.Secret) (*keys.LocalWrapper, error) {
	text, err := secret.Read()
	if err == nil {
		var w *keys.LocalWrapper
		if w, err = keys.ParseLocalWrapper(text); err == nil {
			return w, nil
		}
	}
	return nil, fmt.Errorf("the wrapping key of the signing keys, %s: %w", secret, err)
}

// ExternalAccount reads the binding of the ACME account. It returns nil if there is none.
func ExternalAccount(a *config.ACME) (*webcert.ExternalAccount, error) {
	if a.EABKeyID == "" {
		return nil, nil
	}
	key, err := a.EABKey.Read()
	if err != nil {
		return nil, fmt.Errorf("bundle_endpoint.profile.acme.eab_hmac_key: %w", err)
	}
	return &webcert.ExternalAccount{KeyID: a.EABKeyID, Key: key}, nil
}

// maxRootsBytes is far above the size of any file of roots.
const maxRootsBytes = 4 << 20

// Roots reads the roots for the connection to the ACME server. It returns nil for the roots of the system.
func Roots(a *config.ACME) (*x509.CertPool, error) {
	if a.CAFile == "" {
		return nil, nil
	}
	roots, err := readRoots(a.CAFile)
	if err != nil {
		return nil, fmt.Errorf("bundle_endpoint.profile.acme.ca_file: %w", err)
	}
	return roots, nil
}

// TraceRoots reads the roots for the connection to the collector of traces. It returns nil for the roots of the system.
func TraceRoots(t *config.Traces) (*x509.CertPool, error) {
	if t.CAFile == "" {
		return nil, nil
	}
	roots, err := readRoots(t.CAFile)
	if err != nil {
		return nil, fmt.Errorf("telemetry.traces.ca_file: %w", err)
	}
	return roots, nil
}

// readBounded reads a file of roots, and at most one byte more than allowed.
func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(file, maxRootsBytes+1))
	return raw, errors.Join(err, file.Close())
}

func readRoots(path string) (*x509.CertPool, error) {
	raw, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if len(raw) > maxRootsBytes || !roots.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%s holds no certificates in PEM, or more than %d bytes", path, maxRootsBytes)
	}
	return roots, nil
}

// WebRoots reads the roots by which other clusters verify the web certificate of the endpoint: none where their
// system's roots do. doubt is why they may not be able to verify it, or "".
func WebRoots(e config.BundleEndpoint, now time.Time) (roots []byte, doubt string, err error) {
	if e.Profile != config.ProfileWeb {
		return nil, "", nil
	}
	roots, expired, err := webRoots(e, now)
	if err != nil || e.ACME != nil {
		return roots, expired, err
	}
	pair, err := webCertificate(e)
	if err != nil {
		return nil, "", err
	}
	return roots, cmp.Or(rootsDoubt(e, pair, roots, now), expired), nil
}

// webRoots reads roots_file. expired names those that have expired, which are left out.
func webRoots(e config.BundleEndpoint, now time.Time) (roots []byte, expired string, err error) {
	if e.RootsFile == "" {
		return nil, "", nil
	}
	raw, err := readBounded(e.RootsFile)
	var out []string
	if err == nil {
		roots, out, err = relationship.ParseWebRoots(raw, now)
	}
	if err == nil && len(roots) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, "", fmt.Errorf("bundle_endpoint.profile.roots_file %s: %w", e.RootsFile, err)
	}
	if len(out) > 0 {
		expired = fmt.Sprintf("bundle_endpoint.profile.roots_file %s: its %s; other clusters do not get it: take it "+
			"out of the file", e.RootsFile, strings.Join(out, ", its "))
	}
	return roots, expired, nil
}

// rootsDoubt verifies the web certificate as another cluster would, by the roots that it gets or else by the system's.
func rootsDoubt(e config.BundleEndpoint, pair *tls.Certificate, roots []byte, now time.Time) string {
	options := x509.VerifyOptions{Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, der := range pair.Certificate[1:] {
		if cert, err := x509.ParseCertificate(der); err == nil {
			options.Intermediates.AddCert(cert)
		}
	}
	if len(roots) > 0 {
		options.Roots = x509.NewCertPool()
		options.Roots.AppendCertsFromPEM(roots)
	}
	var unknown x509.UnknownAuthorityError
	switch _, err := pair.Leaf.Verify(options); {
	case !errors.As(err, &unknown):
		return ""
	case len(roots) > 0:
		return fmt.Sprintf("cert_file %s is below none of the certificates in roots_file %s, so that other clusters "+
			"refuse the endpoint: name the roots of its CA", e.CertFile, e.RootsFile)
	}
	return fmt.Sprintf("cert_file %s is below no root of this system, so that other clusters may refuse the endpoint: "+
		"if its CA is private, name its roots in bundle_endpoint.profile.roots_file", e.CertFile)
}

// webCertificate reads the certificate of an https_web endpoint from its files.
func webCertificate(e config.BundleEndpoint) (*tls.Certificate, error) {
	files, err := webcert.NewCertificateFiles(webcert.CertificateFilesConfig{CertFile: e.CertFile, KeyFile: e.KeyFile})
	if err != nil {
		return nil, fmt.Errorf("bundle_endpoint.profile: %w", err)
	}
	pair, err := files.Certificate(context.Background(), "")
	if err != nil {
		return nil, fmt.Errorf("bundle_endpoint.profile: %w", err)
	}
	return pair, nil
}

// Warnings returns what a member starts with although it does not serve all that the configuration promises.
func Warnings(cfg *config.Config, now time.Time) []string {
	var out []string
	if e := cfg.BundleEndpoint; e.Profile == config.ProfileWeb && e.ACME == nil {
		out = append(out, certificateWarnings(e, now)...)
	}
	if err := vaultFiles(cfg); err != nil {
		for line := range strings.Lines(err.Error()) {
			out = append(out, "the member starts, and cannot use Vault until this is mended: "+
				strings.TrimSuffix(line, "\n"))
		}
	}
	return out
}

// certificateWarnings compares the web certificate with the time and with the name of the endpoint.
func certificateWarnings(e config.BundleEndpoint, now time.Time) []string {
	pair, err := webCertificate(e)
	if err != nil {
		return nil // Check returns it
	}
	leaf := pair.Leaf
	var out []string
	roots, expired, err := webRoots(e, now)
	if err != nil {
		out = append(out, err.Error())
	} else if len(roots) > 0 {
		for _, doubt := range []string{expired, rootsDoubt(e, pair, roots, now)} {
			if doubt != "" {
				out = append(out, doubt)
			}
		}
	}
	switch {
	case now.After(leaf.NotAfter):
		out = append(out, fmt.Sprintf("cert_file %s expired on %s: peers refuse it; renew it",
			e.CertFile, leaf.NotAfter.UTC().Format(time.RFC3339)))
	case now.Before(leaf.NotBefore):
		out = append(out, fmt.Sprintf("cert_file %s is valid from %s only: check the clock of this machine",
			e.CertFile, leaf.NotBefore.UTC().Format(time.RFC3339)))
	}
	if host, _, err := net.SplitHostPort(e.Advertise); err == nil {
		if err := leaf.VerifyHostname(host); err != nil {
			out = append(out, fmt.Sprintf("cert_file %s does not fit bundle_endpoint.advertise, so that peers refuse "+
				"it: %v", e.CertFile, err))
		}
	}
	return out
}

// vaultFiles reads what the configured logins to Vault need of this machine.
func vaultFiles(cfg *config.Config) error {
	if cfg.Vault != nil { // keys in Transit share its login
		return cfg.Vault.CheckFiles()
	}
	var errs []error
	if cfg.Transit != nil {
		errs = append(errs, cfg.Transit.Vault.CheckFiles())
	}
	for _, one := range cfg.Authority.Encryption {
		if one.Transit != nil {
			errs = append(errs, one.Transit.Vault.CheckFiles())
		}
	}
	return errors.Join(errs...)
}
