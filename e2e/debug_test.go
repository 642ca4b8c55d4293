package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestDebugBundle plants secrets of every kind in a member and looks for them in what a report of a defect contains, as
// they are and in the notations in which a log or a stack would show them.
func TestDebugBundle(t *testing.T) {
	planted := map[string][]byte{}
	plantText := func(kind, text string) {
		planted[kind] = []byte(text)
		planted[kind+", its end"] = []byte(text[max(0, len(text)-24):])
	}
	secret := func(i int) string { return fmt.Sprintf("planted-secret-%02d-%s", i, strings.Repeat("x7Q", 8)) }
	var env []string
	for i := range 8 {
		env = append(env, fmt.Sprintf("SECRET_%d=%s", i, secret(i)))
		plantText(fmt.Sprintf("variable %d", i), secret(i))
	}
	c := newClusterWith(t, "eu", 1, "", env...)
	p := c.members[0]
	admin := p.socket()
	eventually(t, "the member signs", func() error {
		token, err := admin.SVIDs().IssueJWTSVID(t.Context(), &ententev1.IssueJWTSVIDRequest{
			SpiffeId: "spiffe://eu.example.org/api", Audience: []string{"test"},
		})
		if err == nil {
			plantText("JWT-SVID", token.GetToken())
		}
		return err
	})
	for i := range 6 {
		joins, err := admin.Cluster().CreateJoinToken(t.Context(), &ententev1.CreateJoinTokenRequest{
			MemberId: fmt.Sprintf("eu-%d", i+10),
		})
		require.NoError(t, err)
		plantText(fmt.Sprintf("join token %d", i), joins.GetToken())
		invites, err := admin.Federation().CreateInvitation(t.Context(), &ententev1.CreateInvitationRequest{
			TrustDomain: c.domain, ForeignTrustDomain: fmt.Sprintf("peer-%d.example.org", i),
		})
		require.NoError(t, err)
		plantText(fmt.Sprintf("invitation %d", i), invites.GetToken())
		attests, err := admin.Agents().CreateAgentToken(t.Context(), &ententev1.CreateAgentTokenRequest{
			Agent: fmt.Sprintf("node-%d", i),
		})
		require.NoError(t, err)
		plantText(fmt.Sprintf("agent token %d", i), attests.GetToken())
	}
	plantKeys(t, filepath.Join(p.dir, "data"), planted)

	// A secret in the file itself is read again at each start, and logged by nobody.
	p.stop()
	file := filepath.Join(p.dir, "entente.hcl")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	plantText("join token in the configuration", secret(90))
	require.NoError(t, os.WriteFile(file, fmt.Appendf(text,
		"join {\n  addresses = [\"127.0.0.1:1\"]\n  token = %q\n}\n", secret(90)), 0o600))
	c.start(p)
	require.GreaterOrEqual(t, len(planted), 40)

	out := filepath.Join(t.TempDir(), "bundle.tar.gz")
	printed, err := exec.Command(binary, "debug", "bundle", out,
		"--socket", filepath.Join(p.dir, "data", "admin.sock")).CombinedOutput()
	require.NoError(t, err, "%s", printed)
	info, err := os.Stat(out)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode())
	files := unpackBundle(t, out)
	for name, want := range map[string]string{
		"build.txt": "github.com/hashicorp/raft", "entente.hcl": "trust_domain = \"eu.example.org\"",
		"members.json": "\"eu-1\"", "domains.json": "eu.example.org", "authorities.json": "AUTHORITY_STATE_ACTIVE",
		"relationships.json": "{", "metrics.txt": "entente_raftstore_leader 1", "log.txt": "entente: started",
		"raft.json": "\"state\": \"Leader\"", "ready.txt": "/ready/write:\nleader: ok",
		"certificates.pem": "BEGIN CERTIFICATE", "goroutines.txt": "goroutine profile: total",
		"heap.pprof": "inuse_space",
	} {
		require.Contains(t, string(files[name]), want, name)
	}
	require.Len(t, files, 13)
	for kind, content := range planted {
		for _, form := range [][]byte{
			content, []byte(hex.EncodeToString(content)), []byte(base64.StdEncoding.EncodeToString(content)),
			[]byte(base64.RawURLEncoding.EncodeToString(content)), fmt.Append(nil, content),
		} {
			for name, text := range files {
				require.NotContains(t, string(text), string(form), "%s in %s", kind, name)
			}
		}
	}
	// What the test looks for is found where it is.
	require.NotContains(t, string(files["entente.hcl"]), secret(90))
	require.Contains(t, string(files["entente.hcl"]), "token     = \"(hidden)\"")

	// The port does not serve it, not even to an administrator.
	remote, _ := c.as(t, "admin", &ententev1.Grant{Role: ententev1.Role_ROLE_ADMIN})
	stream, err := remote.Debug().Collect(t.Context(), &ententev1.CollectRequest{})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.Unimplemented, status.Code(err), "%v", err)

	profile := filepath.Join(t.TempDir(), "heap.pprof")
	printed, err = exec.Command(binary, "debug", "profile", "mutex", profile,
		"--socket", filepath.Join(p.dir, "data", "admin.sock")).CombinedOutput()
	require.NoError(t, err, "%s", printed)
	printed, err = exec.Command(binary, "debug", "profile", "memory", profile,
		"--socket", filepath.Join(p.dir, "data", "admin.sock")).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(printed), `"memory" is no profile: name one of allocs, block, cpu, goroutine, heap, `+
		"mutex, threadcreate, trace")
}

// plantKeys adds every private key below a folder, as the file has it and as a number.
func plantKeys(t *testing.T, dir string, planted map[string][]byte) {
	found := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || filepath.Ext(path) != ".pem" {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
			if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
				continue
			}
			found++
			kind := fmt.Sprintf("key %d", found)
			planted[kind] = block.Bytes
			if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				if key, ok := key.(*ecdsa.PrivateKey); ok {
					if planted[kind+", its number"], err = key.Bytes(); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}))
	require.GreaterOrEqual(t, found, 3, "identity key and two authorities")
}

// unpackBundle returns the files of a bundle, those that are compressed decompressed.
func unpackBundle(t *testing.T, path string) map[string][]byte {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	compressed, err := gzip.NewReader(f)
	require.NoError(t, err)
	archive := tar.NewReader(compressed)
	files := map[string][]byte{}
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		content, err := io.ReadAll(archive)
		require.NoError(t, err)
		if inner, err := gzip.NewReader(bytes.NewReader(content)); err == nil {
			content, err = io.ReadAll(inner)
			require.NoError(t, err)
		}
		files[strings.TrimPrefix(header.Name, "entente-debug/")] = content
	}
}
