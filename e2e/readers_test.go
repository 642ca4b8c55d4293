package e2e

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/devbuild"
)

// helperBinary returns spiffe-helper, which is built if this is CI.
func helperBinary(t *testing.T) string {
	t.Helper()
	path, err := devbuild.SPIFFEHelper.Built(t.Context())
	require.NoError(t, err)
	if path == "" && os.Getenv("CI") == "" {
		t.Skip("left out: needs spiffe-helper, which 'make peers' builds")
	}
	path, err = devbuild.SPIFFEHelper.Build(t.Context())
	require.NoError(t, err)
	return path
}

// pythonPackages returns the folder with py-spiffe that 'make peers' installs.
func pythonPackages(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../.tools/python")
	require.NoError(t, err)
	if _, err := os.Stat(filepath.Join(path, "spiffe")); err != nil {
		require.Empty(t, os.Getenv("CI"), "py-spiffe is missing, and in CI nothing is left out: run 'make peers'")
		t.Skip("left out: needs py-spiffe, which 'make peers' installs")
	}
	return path
}

// TestReaders: programs of other projects read from an agent what they read from SPIRE's, and the next SVID when the
// authority of the first is no longer trusted.
func TestReaders(t *testing.T) {
	c := newCluster(t, "eu", 1, quick)
	id := "spiffe://" + c.domain + "/web"
	socket := agent(t, c, "node-1", []string{c.members[0].api}, id)
	t.Run("spiffe-helper", func(t *testing.T) {
		helper := helperBinary(t)
		dir := t.TempDir()
		config := filepath.Join(dir, "helper.conf")
		require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
agent_address = %q
cert_dir = %q
daemon_mode = true
svid_file_name = "svid.pem"
svid_key_file_name = "svid.key"
svid_bundle_file_name = "bundle.pem"
jwt_svids = [{jwt_audience = "db", jwt_svid_file_name = "token"}]
jwt_bundle_file_name = "bundle.json"
`, socket, dir), 0o600))
		start(t, "spiffe-helper", exec.Command(helper, "-config", config))
		first := serialOf(t, dir, id, "")
		for _, name := range []string{"token", "bundle.json"} {
			eventually(t, name+" is written", func() error {
				_, err := os.Stat(filepath.Join(dir, name))
				return err
			})
		}
		replaceAuthority(t, c)
		serialOf(t, dir, id, first)
	})
	t.Run("py-spiffe", func(t *testing.T) {
		packages := pythonPackages(t)
		cmd := exec.Command("python3", filepath.Join("python", "reader.py"), socket)
		cmd.Env = append(os.Environ(), "PYTHONPATH="+packages)
		p := start(t, "py-spiffe", cmd)
		said := func(prefix string, n int) (last string) {
			eventually(t, fmt.Sprintf("it prints %q %d times", prefix, n), func() error {
				p.mu.Lock()
				defer p.mu.Unlock()
				found := 0
				for _, line := range p.lines {
					if strings.HasPrefix(line, prefix) {
						found, last = found+1, line
					}
				}
				if found < n {
					return fmt.Errorf("its output is %q", p.lines)
				}
				return nil
			})
			return last
		}
		first := said("x509 "+id+" ", 1)
		require.True(t, strings.HasSuffix(first, " "+c.domain), first)
		said("jwt "+id, 1)
		replaceAuthority(t, c)
		require.NotEqual(t, first, said("x509 "+id+" ", 2))
	})
}

// replaceAuthority taints the authority that signs, which another one replaces.
func replaceAuthority(t *testing.T, c *cluster) {
	t.Helper()
	c.members[0].command("authority", "taint", everySigner(t, c)[0].GetId(), "--yes")
}

// serialOf returns the serial number of the SVID in a folder, once it is another one than before, of an ID, and with a
// bundle that verifies it.
func serialOf(t *testing.T, dir, id, before string) (serial string) {
	t.Helper()
	eventually(t, "the SVID is written", func() error {
		chain, err := parseAll(filepath.Join(dir, "svid.pem"))
		if err != nil {
			return err
		}
		roots, err := parseAll(filepath.Join(dir, "bundle.pem"))
		if err != nil {
			return err
		}
		if serial = chain[0].SerialNumber.String(); serial == before {
			return fmt.Errorf("it is still %s", serial)
		}
		if len(chain[0].URIs) != 1 || chain[0].URIs[0].String() != id {
			return fmt.Errorf("it is of %v", chain[0].URIs)
		}
		options := x509.VerifyOptions{
			Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		}
		for _, c := range roots {
			options.Roots.AddCert(c)
		}
		for _, c := range chain[1:] {
			options.Intermediates.AddCert(c)
		}
		_, err = chain[0].Verify(options)
		return err
	})
	return serial
}

func parseAll(path string) (all []*x509.Certificate, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no certificate: %q", path, bytes.TrimSpace(text))
	}
	return all, nil
}
