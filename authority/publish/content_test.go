package publish

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/bundle"
)

var home = spiffeid.RequireTrustDomainFromString("eu.example.org")

func sequenceOf(b *bundle.Bundle) uint64 {
	n, _ := b.Sequence()
	return n
}

// newRoot returns a self-signed root of the home domain.
func newRoot(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := keys.Generate()
	require.NoError(t, err)
	template, err := svid.CATemplate(home, key.Public(), "root", time.Now(), time.Now().Add(time.Hour), 1)
	require.NoError(t, err)
	root, err := svid.SignCertificate(template, template, key.Public(), key, svid.LintCA(home))
	require.NoError(t, err)
	return root
}

// TestNextVersion: whatever changes, the sequence rises by one with each change of the document, and never otherwise.
func TestNextVersion(t *testing.T) {
	var pool []*statev1.Authority
	for i := range 4 {
		root, name := newRoot(t), fmt.Sprint("root-", i)
		anchors := [][]byte{root.Raw}
		pool = append(
			pool,
			&statev1.Authority{Id: name, Kind: statev1.AuthorityKind(plan.X509), Anchors: anchors},
			&statev1.Authority{
				Id: name + "-jwt", Kind: statev1.AuthorityKind(plan.JWT), JwtKey: root.RawSubjectPublicKeyInfo,
			},
			&statev1.Authority{Id: name + "-2", Kind: statev1.AuthorityKind(plan.X509), Anchors: anchors},
		)
	}
	rapid.Check(t, func(t *rapid.T) {
		past := rapid.Uint64Range(0, 1000).Draw(t, "past")
		var current *bundle.Bundle
		last := past
		for range rapid.IntRange(1, 20).Draw(t, "changes") {
			var rows []*statev1.Authority
			for _, row := range pool {
				if rapid.Bool().Draw(t, "present") {
					rows = append(rows, row)
				}
			}
			hint := time.Duration(rapid.IntRange(10, 12).Draw(t, "hint")) * time.Second
			content, err := contentOf(rows, nil, func([]byte) bool { return false })
			if err != nil {
				t.Fatal(err)
			}
			next, err := nextVersion(home, current, past, content, hint)
			if err != nil {
				t.Fatal(err)
			}
			if next == nil {
				if current == nil {
					if len(rows) > 0 {
						t.Fatal("authorities that are not published")
					}
					continue
				}
				content.Sequence, content.RefreshHint = new(last), &hint
				same, err := bundle.New(home, content)
				if err != nil || !bytes.Equal(same.Marshal(), current.Marshal()) {
					t.Fatalf("a change that was not published: %v", err)
				}
				continue
			}
			if sequenceOf(next) != last+1 {
				t.Fatalf("sequence %d follows %d", sequenceOf(next), last)
			}
			if current != nil {
				if was, _ := current.RefreshHint(); was == hint && current.SameKeys(next) {
					t.Fatal("the sequence rose without a change")
				}
			}
			current, last = next, sequenceOf(next)
		}
	})
}
