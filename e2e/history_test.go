package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
)

// history reads the versions of a bundle, newest first.
func history(t *testing.T, c *cluster, domain string) []*ententev1.BundleVersion {
	t.Helper()
	answer, err := c.members[0].socket().
		Bundles().
		GetBundleHistory(t.Context(), &ententev1.GetBundleHistoryRequest{TrustDomain: domain})
	require.NoError(t, err)
	return answer.GetVersions()
}

func rel(t *testing.T, c *cluster, domain string) *ententev1.Relationship {
	t.Helper()
	r, err := c.members[0].socket().
		Federation().
		GetRelationship(t.Context(), &ententev1.GetRelationshipRequest{TrustDomain: domain})
	require.NoError(t, err)
	return r
}

// TestHistoryOnBothSides: what one cluster makes, the other takes over, with the statements that continue each other.
func TestHistoryOnBothSides(t *testing.T) {
	t.Parallel()
	eu, us := newCluster(t, "eu", 1, quick), newCluster(t, "us", 2, quick)
	federate(t, eu, us)
	_, err := us.members[0].socket().Authorities().RotateAuthorities(t.Context(), &ententev1.RotateAuthoritiesRequest{})
	require.NoError(t, err)
	eventually(t, "the rotation is known on both sides", func() error {
		own, seen := history(t, us, us.domain), history(t, eu, us.domain)
		if len(seen) < 2 || seen[0].GetSequence() != own[0].GetSequence() {
			return fmt.Errorf("us is at %d, eu has %d versions", own[0].GetSequence(), len(seen))
		}
		if seen[0].GetStatementState() != ententev1.StatementState_STATEMENT_STATE_CHECKED ||
			own[0].GetStatementDigest() != seen[0].GetStatementDigest() {
			return fmt.Errorf("the statement on %d is not checked yet", own[0].GetSequence())
		}
		return nil
	})
	seen := history(t, eu, us.domain)
	require.True(t, strings.HasPrefix(seen[0].GetSource(), "endpoint https://"))
	require.Equal(t, "bootstrap by admin socket", strings.Split(seen[len(seen)-1].GetSource(), " (")[0])
	own := history(t, us, us.domain)
	require.Equal(t, ententev1.StatementState_STATEMENT_STATE_STARTS, own[len(own)-1].GetStatementState())
	for _, v := range own[:len(own)-1] {
		require.Equal(
			t, ententev1.StatementState_STATEMENT_STATE_CONTINUES, v.GetStatementState(), "sequence %d",
			v.GetSequence(),
		)
	}
	require.Empty(t, rel(t, eu, us.domain).GetAlarms())
	eventually(t, "the newest version is stated", func() error {
		newest, stated := history(t, us, us.domain)[0].GetSequence(), rel(t, eu, us.domain).GetStatedSequence()
		if newest != stated {
			return fmt.Errorf("us is at %d, and eu has the statement on %d", newest, stated)
		}
		return nil
	})
}

// impostor is an endpoint with a certificate of its own, which serves what a test sets.
type impostor struct {
	*httptest.Server
	roots []byte

	mu         sync.Mutex
	document   []byte
	statements []byte
}

func newImpostor(t *testing.T) *impostor {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(
			1,
		), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:        true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	i := &impostor{roots: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	i.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		if strings.HasSuffix(r.URL.Path, "/statements") {
			_, _ = w.Write(i.statements)
			return
		}
		_, _ = w.Write(i.document)
	}))
	i.TLS = &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
	i.StartTLS()
	t.Cleanup(i.Close)
	return i
}

func (i *impostor) serve(document, statements []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.document, i.statements = document, statements
}

// forge is a bundle document under another sequence, without its first key.
func forge(t *testing.T, document []byte, sequence uint64) []byte {
	t.Helper()
	var fields map[string]any
	require.NoError(t, json.Unmarshal(document, &fields))
	fields["spiffe_sequence"] = sequence
	keys, ok := fields["keys"].([]any)
	require.True(t, ok)
	fields["keys"] = keys[1:]
	forged, err := json.Marshal(fields)
	require.NoError(t, err)
	return forged
}

// TestForgeriesAreAlarmed: a compromised endpoint serves other keys under a known sequence, other keys under an older
// one, and then a version that no key of the previous version has signed. Each raises an alarm.
func TestForgeriesAreAlarmed(t *testing.T) {
	t.Parallel()
	eu, us := newCluster(t, "eu", 1, quick), newCluster(t, "us", 1, quick)
	i := newImpostor(t)
	truth := func() (uint64, []byte, []byte) {
		client := us.members[0].socket().Bundles()
		b, err := client.GetBundle(t.Context(), &ententev1.GetBundleRequest{})
		require.NoError(t, err)
		list, err := client.ListBundleStatements(t.Context(), &ententev1.ListBundleStatementsRequest{})
		require.NoError(t, err)
		home := homeDomain(t, us)
		return b.GetSequence(), b.GetDocument(), statement.MarshalList(home.TrustDomain(), list.GetStatements())
	}
	first, document, statements := truth()
	i.serve(document, statements)
	client := eu.members[0].socket().Federation()
	_, err := client.CreateRelationship(t.Context(), &ententev1.CreateRelationshipRequest{
		Relationship: &ententev1.Relationship{
			TrustDomain: us.domain,
			Url:         i.URL + "/",
			Profile:     ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB,
			WebRoots:    i.roots,
		},
		BootstrapBundle: document,
	})
	require.NoError(t, err)
	stated := func(sequence uint64) {
		eventually(t, fmt.Sprintf("the statement on %d is checked", sequence), func() error {
			if r := rel(t, eu, us.domain); r.GetStatedSequence() != sequence {
				return fmt.Errorf("it is checked up to %d: %s", r.GetStatedSequence(), r.GetLastError())
			}
			return nil
		})
	}
	stated(first)
	_, err = us.members[0].socket().Domains().UpdateDomain(t.Context(), &ententev1.UpdateDomainRequest{
		Domain: &ententev1.Domain{
			TrustDomain: us.domain,
			RefreshHint: durationpb.New(2 * time.Second),
		}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"refresh_hint"}},
	})
	require.NoError(t, err)
	second, document, statements := truth()
	require.Equal(t, first+1, second)
	i.serve(document, statements)
	stated(second)
	require.Empty(t, rel(t, eu, us.domain).GetAlarms())

	alarmed := func(name string) {
		eventually(t, "the alarm "+name, func() error {
			r := rel(t, eu, us.domain)
			if !slices.ContainsFunc(
				r.GetAlarms(),
				func(a *ententev1.RelationshipAlarm) bool { return a.GetName() == name },
			) {
				return fmt.Errorf("there are %v; last error: %s", r.GetAlarms(), r.GetLastError())
			}
			return nil
		})
	}
	cleared := func() {
		_, err := client.UpdateRelationship(
			t.Context(),
			&ententev1.UpdateRelationshipRequest{
				Relationship:    &ententev1.Relationship{TrustDomain: us.domain},
				BootstrapBundle: document,
			},
		)
		require.NoError(t, err)
		require.Empty(t, rel(t, eu, us.domain).GetAlarms())
	}
	for _, sequence := range []uint64{second, first} {
		i.serve(forge(t, document, sequence), statements)
		alarmed("split_view")
		i.serve(document, statements)
		eventually(t, "the true bundle is served again", func() error {
			r, err := client.RefreshRelationship(
				t.Context(), &ententev1.RefreshRelationshipRequest{TrustDomain: us.domain},
			)
			if err != nil || r.GetLastError() != "" {
				return fmt.Errorf("%w %s", err, r.GetLastError())
			}
			return nil
		})
		cleared()
	}
	i.serve(forge(t, document, second+1), []byte(`<html>`))
	alarmed("broken_chain")
	require.Equal(t, second+1, rel(t, eu, us.domain).GetSequence(), "trust goes on by the rules for bundles")
}

// homeDomain is a cluster's home domain as its own bundle names it.
func homeDomain(t *testing.T, c *cluster) *bundle.Bundle {
	t.Helper()
	td, err := bundle.ParseTrustDomain(c.domain)
	require.NoError(t, err)
	b, _, err := bundle.Parse(td, homeBundle(t, c).GetDocument())
	require.NoError(t, err)
	return b
}
