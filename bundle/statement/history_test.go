package statement_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/bundletest"
	"github.com/ententehq/entente/bundle/statement"
)

// archive keeps a history as its owners do.
type archive struct {
	versions []*statev1.BundleVersion
	keys     map[string]*statev1.BundleKey
}

func (a *archive) record(t testing.TB, b *bundle.Bundle, depth statement.Depth) statement.Recorded {
	t.Helper()
	r, err := statement.Record(b, a.versions, "own", time.Unix(1000, 0), depth)
	require.NoError(t, err)
	a.versions = statement.Recount(a.versions, r)
	for _, k := range r.Keep {
		require.NotContains(t, a.keys, string(k.GetId()), "each authority is stored once")
		a.keys[string(k.GetId())] = k
	}
	for _, id := range r.Forget {
		require.Contains(t, a.keys, string(id))
		delete(a.keys, string(id))
	}
	used := map[string]bool{}
	for _, v := range a.versions {
		for _, ref := range v.GetKeys() {
			require.Contains(t, a.keys, string(ref.GetId()), "nothing is missing")
			used[string(ref.GetId())] = true
		}
	}
	require.Len(t, a.keys, len(used), "nothing is left over")
	return r
}

func (a *archive) key(id []byte) (*statev1.BundleKey, error) {
	if k, ok := a.keys[string(id)]; ok {
		return k, nil
	}
	return nil, fmt.Errorf("no authority %x", id)
}

func TestHistoryKeepsEachAuthorityOnce(t *testing.T) {
	a := &archive{keys: map[string]*statev1.BundleKey{}}
	roots := []bundletest.Authority{
		bundletest.NewAuthority(t, bundletest.ChainDomain),
		bundletest.NewAuthority(t, bundletest.ChainDomain),
		bundletest.NewAuthority(t, bundletest.ChainDomain),
	}
	var made []*bundle.Bundle
	for i := range 12 {
		b := bundletest.NewBundle(t, bundletest.ChainDomain, uint64(i+1), roots[i/4])
		b, err := b.With(func(c *bundle.Content) {
			c.JWTAuthorities = map[string]crypto.PublicKey{
				fmt.Sprint(i):     bundletest.NewKey(t).Public(),
				fmt.Sprint(i + 1): bundletest.NewKey(t).Public(),
			}
		})
		require.NoError(t, err)
		made = append(made, b)
		r := a.record(t, b, statement.ForeignDepth)
		require.Len(t, r.Put, 1)
	}
	require.Len(t, a.versions, statement.ForeignDepth.Versions)
	for i, v := range a.versions {
		want := made[len(made)-len(a.versions)+i]
		got, err := statement.FromVersion(v, a.key)
		require.NoError(t, err)
		require.True(t, got.Equal(want))
	}
	// The same keys under another sequence add a version, and no authority.
	again, err := made[11].WithSequence(13)
	require.NoError(t, err)
	require.Empty(t, a.record(t, again, statement.ForeignDepth).Keep)

	damaged := proto.Clone(a.versions[9]).(*statev1.BundleVersion)
	damaged.Keys = damaged.GetKeys()[1:]
	_, err = statement.FromVersion(damaged, a.key)
	require.ErrorContains(t, err, "the history holds other authorities for it than it had")
}

func TestHistoryIsBoundedInBytes(t *testing.T) {
	a := &archive{keys: map[string]*statev1.BundleKey{}}
	large := func(sequence uint64, roots int) *bundle.Bundle {
		var all []bundletest.Authority
		for range roots {
			all = append(all, bundletest.NewAuthority(t, bundletest.ChainDomain))
		}
		return bundletest.NewBundle(t, bundletest.ChainDomain, sequence, all...)
	}
	depth := statement.Depth{Versions: 10, Bytes: 4 << 10}
	for i := range uint64(4) {
		a.record(t, large(i+1, 4), depth)
	}
	require.Len(t, a.versions, 4, "versions stay, without what is too large")
	_, err := statement.FromVersion(a.versions[0], a.key)
	require.ErrorIs(t, err, statement.ErrContentGone)
	require.EqualError(
		t,
		err,
		"version 1 of the bundle of eu.example.org: its authorities are not kept: the history of the domain would be "+
			"too large with them",
	)
	_, err = statement.FromVersion(a.versions[3], a.key)
	require.NoError(t, err)
	a.record(t, large(5, 40), depth)
	_, err = statement.FromVersion(a.versions[4], a.key)
	require.ErrorIs(t, err, statement.ErrContentGone, "one that is too large by itself")
	require.Empty(t, a.keys)
}

// TestHistoryOfTenThousandDomains works out what the histories of many foreign domains cost: ten versions of the bundle
// of a cluster of three members, each with another JWT key, and a root that was replaced.
func TestHistoryOfTenThousandDomains(t *testing.T) {
	row := &statev1.ForeignHistory{TrustDomain: bundletest.ChainDomain.Name()}
	a := &archive{keys: map[string]*statev1.BundleKey{}}
	roots := []bundletest.Authority{
		bundletest.NewAuthority(t, bundletest.ChainDomain),
		bundletest.NewAuthority(t, bundletest.ChainDomain),
		bundletest.NewAuthority(t, bundletest.ChainDomain),
		bundletest.NewAuthority(t, bundletest.ChainDomain),
	}
	jwt := map[string]crypto.PublicKey{}
	for i := range 10 {
		jwt[fmt.Sprintf("%016d", i)] = bundletest.NewKey(t).Public()
		delete(jwt, fmt.Sprintf("%016d", i-6))
		b, err := bundletest.NewBundle(t, bundletest.ChainDomain, uint64(i+1), roots[i/8:i/8+3]...).
			With(func(c *bundle.Content) { c.JWTAuthorities = jwt })
		require.NoError(t, err)
		a.record(t, b, statement.ForeignDepth)
	}
	for _, v := range a.versions {
		v.Source, v.StatementDigest = "endpoint https://bundles.eu.example.org/bundles/eu.example.org", make([]byte, 32)
	}
	row.Versions = a.versions
	for _, k := range a.keys {
		row.Keys = append(row.Keys, k)
	}
	row.Statement = string(bytes.Repeat([]byte("s"), 1500))
	size := proto.Size(row)
	t.Logf("one domain: %d bytes; ten thousand: %d MiB", size, size*10_000>>20)
	require.Less(t, size, 10<<10)
}

func TestDifferences(t *testing.T) {
	root, other := bundletest.NewAuthority(
		t,
		bundletest.ChainDomain,
	), bundletest.NewAuthority(
		t,
		bundletest.ChainDomain,
	)
	key := bundletest.NewKey(t).Public()
	one := bundletest.NewBundle(t, bundletest.ChainDomain, 1, root)
	with := func(b *bundle.Bundle, change func(*bundle.Content)) *bundle.Bundle {
		b, err := b.With(change)
		require.NoError(t, err)
		return b
	}
	jwt := func(kid string, k crypto.PublicKey) func(*bundle.Content) {
		return func(c *bundle.Content) { c.JWTAuthorities = map[string]crypto.PublicKey{kid: k} }
	}
	described := func(c bundletest.Authority) string {
		return fmt.Sprintf(
			"key %x, %q, valid from %s to %s",
			c.Cert.SubjectKeyId,
			c.Cert.Subject.String(),
			c.Cert.NotBefore.UTC().Format(time.RFC3339),
			c.Cert.NotAfter.UTC().Format(time.RFC3339),
		)
	}
	for _, test := range []struct {
		name     string
		from, to *bundle.Bundle
		words    []string
	}{
		{"the same keys", one, bundletest.NewBundle(t, bundletest.ChainDomain, 2, root), nil},
		{"from nothing", nil, one, []string{"X.509 authority added: " + described(root)}},
		{"another root", one, bundletest.NewBundle(t, bundletest.ChainDomain, 2, other),
			[]string{"X.509 authority removed: " + described(root), "X.509 authority added: " + described(other)}},
		{"a JWT key", one, with(one, jwt("abc", key)), []string{"JWT authority added: key abc, EC P-256"}},
		{"none any more", with(one, jwt("a b", key)), one, []string{`JWT authority removed: key "a b", EC P-256`}},
		{"a kid used again", with(one, jwt("abc", key)), with(one, jwt("abc", bundletest.NewKey(t).Public())),
			[]string{"JWT authority replaced: key abc stands for another key, EC P-256"}},
		{"a hint", one, with(one, func(c *bundle.Content) { c.RefreshHint = new(90 * time.Second) }),
			[]string{"refresh hint changed from 5m0s to 1m30s"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var words []string
			for _, d := range bundle.Differences(test.from, test.to) {
				words = append(words, d.Text)
			}
			require.Equal(t, test.words, words)
		})
	}
}

// FuzzDifferences: each difference of two bundles is one line of printable text, there is none exactly if they are
// equal, and a history returns the recorded bundles unchanged. The bundles are made of a few given parts and of free
// names: with two whole documents as input the fuzzer finds nothing more, and spends a minute on minimizing each.
func FuzzDifferences(f *testing.F) {
	f.Add(uint16(0b0_01_01_001), uint16(0b1_10_00_011), "kid", "an authority", int64(300))
	f.Add(uint16(0), uint16(0b1_11_11_111), "\u202e", "two\nlines", int64(-1))
	f.Add(uint16(0b0_00_01_000), uint16(0b1_00_10_000), "\xff", "", int64(1<<62))
	plain := []*x509.Certificate{
		bundletest.NewAuthority(f, bundletest.ChainDomain).Cert,
		bundletest.NewAuthority(f, bundletest.ChainDomain).Cert,
	}
	named := bundletest.NewKey(f)
	keys := []crypto.PublicKey{
		nil,
		bundletest.NewKey(f).Public(),
		bundletest.NewKey(f).Public(),
		bundletest.RSAKey().Public(),
	}
	f.Fuzz(func(t *testing.T, one, two uint16, kid, name string, hint int64) {
		template := bundletest.CATemplate(bundletest.ChainDomain)
		template.Subject.CommonName = name
		der, err := x509.CreateCertificate(rand.Reader, template, template, named.Public(), named)
		if err != nil {
			return
		}
		odd, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		pick := func(from uint16) (*bundle.Bundle, error) {
			c := bundle.Content{JWTAuthorities: map[string]crypto.PublicKey{}}
			for i, certificate := range append(plain[:2:2], odd) {
				if from&(1<<i) != 0 {
					c.X509Authorities = append(c.X509Authorities, certificate)
				}
			}
			for i, id := range []string{kid, "a"} {
				if key := keys[from>>(3+2*i)&3]; key != nil {
					c.JWTAuthorities[id] = key
				}
			}
			if from&(1<<7) != 0 {
				d := time.Duration(hint)
				c.RefreshHint = &d
			}
			return bundle.New(bundletest.ChainDomain, c)
		}
		a, err := pick(one)
		if err != nil {
			return
		}
		b, err := pick(two)
		if err != nil {
			return
		}
		there, back := bundle.Differences(a, b), bundle.Differences(b, a)
		require.Len(t, back, len(there))
		aHint, aHas := a.RefreshHint()
		bHint, bHas := b.RefreshHint()
		require.Equal(t, a.SameKeys(b) && aHint == bHint && aHas == bHas, len(there) == 0)
		for _, d := range there {
			for _, r := range d.Text {
				require.True(t, r == ' ' || unicode.IsGraphic(r) && !unicode.IsSpace(r), "%q", d.Text)
			}
		}
		archived := &archive{keys: map[string]*statev1.BundleKey{}}
		archived.record(t, a, statement.ForeignDepth)
		archived.record(t, b, statement.ForeignDepth)
		if v := archived.versions[1]; !v.GetContentGone() {
			got, err := statement.FromVersion(v, archived.key)
			require.NoError(t, err)
			require.True(t, got.Equal(b))
		}
	})
}
