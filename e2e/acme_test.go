package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/webcert/acmetest"
)

// balancer passes connections on to its targets by turns, as the address of a name does that several members serve.
type balancer struct {
	net.Listener
	mu      sync.Mutex
	targets []string
	next    int
	passed  map[string]int
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b := &balancer{Listener: l, passed: map[string]int{}}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go b.pass(conn)
		}
	}()
	return b
}

func (b *balancer) lead(to ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.targets, b.next, b.passed = to, 0, map[string]int{}
}

func (b *balancer) count(target string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.passed[target]
}

func (b *balancer) pass(in net.Conn) {
	defer func() { _ = in.Close() }()
	b.mu.Lock()
	if len(b.targets) == 0 {
		b.mu.Unlock()
		return
	}
	target := b.targets[b.next%len(b.targets)]
	b.next++
	b.passed[target]++
	b.mu.Unlock()
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(out, in)
		_ = out.Close()
	}()
	_, _ = io.Copy(in, out)
}

// webCertificateOf waits for the certificate that a member presents for localhost, verified by root.
func webCertificateOf(t *testing.T, p *process, root string) *x509.Certificate {
	t.Helper()
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(root)))
	var found *x509.Certificate
	eventually(t, p.id+" presents a web certificate", func() error {
		conn, err := tls.Dial(
			"tcp", p.bundles, &tls.Config{ServerName: "localhost", RootCAs: roots, MinVersion: tls.VersionTLS13},
		)
		if err != nil {
			return err
		}
		found = conn.ConnectionState().PeerCertificates[0]
		return conn.Close()
	})
	return found
}

// TestOneNameServedByThreeMembers: three members get certificates for one name, each its own, while the ACME server
// always looks at other members than the one that orders; a peer federates by that name alone.
func TestOneNameServedByThreeMembers(t *testing.T) {
	t.Parallel()
	name := newBalancer(t)
	pebble, _ := acmetest.Start(t, acmetest.Options{Endpoint: name.Addr().String()})
	eu := &cluster{t: t, name: "eu", domain: "eu.example.org", extra: fmt.Sprintf(`
federation {
  min_refresh      = "1s"
  peer_min_refresh = "1s"
}
bundle_endpoint {
  listen       = "BUNDLES"
  refresh_hint = "1s"
  profile "https_web" {
    acme {
      directory      = %q
      ca_file        = %q
      hosts          = ["localhost"]
      agree_to_terms = true
    }
  }
}
`, pebble.Directory, pebble.CAFile(t))}
	first := eu.add("", "")
	name.lead(first.bundles)
	eu.start(first, "--bootstrap")
	serials := map[string]string{webCertificateOf(t, first, pebble.Root).SerialNumber.String(): first.id}

	var all []string
	for _, others := range [][]int{{0}, {0, 1}} {
		all = nil
		for _, i := range others {
			all = append(all, eu.members[i].bundles)
		}
		name.lead(all...)
		p := eu.join()
		serials[webCertificateOf(t, p, pebble.Root).SerialNumber.String()] = p.id
		for _, other := range all {
			require.Positive(t, name.count(other), "the ACME server did not look at %s", other)
		}
	}
	require.Len(t, serials, 3, "each member has a certificate of its own")
	name.lead(append(all, eu.members[2].bundles)...)

	// A member that was started again has its certificate, and orders none.
	before := webCertificateOf(t, first, pebble.Root).SerialNumber
	name.lead()
	first.stop()
	eu.start(first)
	require.Equal(t, before, webCertificateOf(t, first, pebble.Root).SerialNumber)
	name.lead(append(all, eu.members[2].bundles)...)

	// What a peer needs is the name and, here, the root of a private ACME server.
	us := newCluster(t, "us", 1, quick)
	_, port, err := net.SplitHostPort(name.Addr().String())
	require.NoError(t, err)
	fed := us.members[0].socket().Federation()
	_, err = fed.CreateRelationship(
		t.Context(),
		&ententev1.CreateRelationshipRequest{Relationship: &ententev1.Relationship{
			TrustDomain: eu.domain, Url: "https://localhost:" + port + "/",
			Profile:  ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB,
			WebRoots: []byte(pebble.Root),
		}},
	)
	require.NoError(t, err)
	arrives(t, us, eu, eu.domain)

	// Keys are where they were made, and in nothing that travels.
	for _, p := range eu.members {
		require.NoError(
			t,
			filepath.WalkDir(
				filepath.Join(p.dir, "data", "raft"),
				func(path string, entry os.DirEntry, err error) error {
					if err != nil || entry.IsDir() {
						return nil //nolint:nilerr // files come and go
					}
					if raw, err := os.ReadFile(path); err == nil {
						require.False(t, strings.Contains(string(raw), "PRIVATE KEY"), path)
					}
					return nil
				},
			),
		)
	}
}

// arrives waits until the bundle of a domain that from hosts is in the cluster at as it is there.
func arrives(t *testing.T, at, from *cluster, domain string) {
	t.Helper()
	ask := func(c *cluster) (*ententev1.Bundle, error) {
		return c.members[0].socket().Bundles().GetBundle(t.Context(), &ententev1.GetBundleRequest{TrustDomain: domain})
	}
	eventually(t, "the bundle of "+domain+" is in "+at.name, func() error {
		there, err := ask(from)
		if err != nil {
			return err
		}
		here, err := ask(at)
		if err != nil {
			return err
		}
		if here.GetDigest() != there.GetDigest() {
			return fmt.Errorf("sequence %d here, %d there", here.GetSequence(), there.GetSequence())
		}
		return nil
	})
}

// TestServedByAnotherDomain: a cluster's endpoint proves itself as the home domain's, and serves the bundle of another
// domain that the cluster hosts. Who relies on it knows the serving domain by a relationship, or by a bundle that an
// operator brought.
func TestServedByAnotherDomain(t *testing.T) {
	t.Parallel()
	eu := newCluster(
		t, "eu", 1, quick+"authority { x509_svid_ttl = \"5s\" }\n",
	) // its endpoint's SVID is new every few seconds
	us, ap := newCluster(t, "us", 1, quick), newCluster(t, "ap", 1, quick)
	socket := func(c *cluster) string { return "--socket=" + filepath.Join(c.members[0].dir, "data", "admin.sock") }
	command(t, "domain", "create", "pay.example.org", socket(eu))
	create := []string{
		"federation", "create", "pay.example.org", "--url",
		"https://" + eu.members[0].bundles + "/bundles/pay.example.org",
		"--profile", "https_spiffe", "--endpoint-spiffe-id", "spiffe://eu.example.org/entente/bundle-endpoint",
	}

	// No member of us can verify eu yet. With a relationship it can, and still can when eu's own root changes.
	require.Contains(
		t, refusedCommand(t, append(create, socket(us))...),
		"create a relationship with eu.example.org first, or give its bundle with --serving-bundle FILE",
	)
	federate(t, us, eu)
	command(t, append(create, socket(us))...)
	arrives(t, us, eu, "pay.example.org")
	known := homeBundle(t, eu).GetDocument()
	rotate := func(domain string) {
		_, err := eu.members[0].socket().
			Authorities().
			RotateAuthorities(t.Context(), &ententev1.RotateAuthoritiesRequest{TrustDomain: domain, Anchors: true})
		require.NoError(t, err)
	}
	before := signerOfEndpoint(t, eu.members[0])
	rotate(eu.domain)
	rotate("pay.example.org")
	eventually(t, "eu's endpoint proves itself by its new root", func() error {
		if signerOfEndpoint(t, eu.members[0]) == before {
			return fmt.Errorf("it still does by %s", before)
		}
		return nil
	})
	arrives(t, us, eu, eu.domain)
	arrives(t, us, eu, "pay.example.org")
	shown, err := us.members[0].socket().
		Federation().
		RefreshRelationship(t.Context(), &ententev1.RefreshRelationshipRequest{TrustDomain: "pay.example.org"})
	require.NoError(t, err)
	require.Empty(t, shown.GetLastError(), "the new root of eu is known here")

	// In ap the operator brings what eu is verified by, and there is no relationship with eu.
	file := filepath.Join(t.TempDir(), "eu.json")
	require.NoError(t, os.WriteFile(file, homeBundle(t, eu).GetDocument(), 0o600))
	require.NotEqual(t, known, homeBundle(t, eu).GetDocument())
	command(t, append(create, "--serving-bundle", file, socket(ap))...)
	arrives(t, ap, eu, "pay.example.org")

	// An endpoint of another domain proves nothing about this one.
	wrong := append(append([]string{}, create...), socket(us))
	command(t, "federation", "delete", "pay.example.org", "--yes", socket(us))
	wrong[4] = "https://" + us.members[0].bundles + "/"
	command(t, wrong...)
	eventually(t, "the wrong endpoint is named", func() error {
		shown, err := us.members[0].socket().
			Federation().
			GetRelationship(t.Context(), &ententev1.GetRelationshipRequest{TrustDomain: "pay.example.org"})
		if err == nil && shown.GetLastResult() != "no_bundle" {
			err = fmt.Errorf("%s: %s", shown.GetLastResult(), shown.GetLastError())
		}
		return err
	})
}

// signerOfEndpoint is the key of the authority that signed what a bundle endpoint presents.
func signerOfEndpoint(t *testing.T, p *process) string {
	t.Helper()
	unverified := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // what is presented is compared, not trusted
	conn, err := tls.Dial("tcp", p.bundles, unverified)
	require.NoError(t, err)
	defer conn.Close()
	return fmt.Sprintf("%x", conn.ConnectionState().PeerCertificates[0].AuthorityKeyId)
}

// refusedCommand runs a command that must fail, and returns its standard error.
func refusedCommand(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "entente %v: %s", args, out)
	require.Positive(t, exit.ExitCode(), "entente %v: %s", args, out)
	return string(out)
}
