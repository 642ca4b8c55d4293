package plan_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/kubernetes/api/v1alpha1"
	"github.com/ententehq/entente/kubernetes/publish/plan"
)

var trustBundles = schema.GroupVersionKind{
	Group: plan.ClusterTrustBundle.Group, Version: "v1", Kind: plan.ClusterTrustBundle.Kind,
}

// authority returns a CA certificate.
func authority(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return parsed
}

// of returns a bundle with one X.509 authority.
func of(t *testing.T, td string) *bundle.Bundle {
	t.Helper()
	b, err := bundle.New(spiffeid.RequireTrustDomainFromString(td), bundle.Content{
		X509Authorities: []*x509.Certificate{authority(t, td)},
	})
	require.NoError(t, err)
	return b
}

// jwtOnly returns a bundle with one JWT authority.
func jwtOnly(t *testing.T, td string) *bundle.Bundle {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	b, err := bundle.New(spiffeid.RequireTrustDomainFromString(td), bundle.Content{
		JWTAuthorities: map[string]crypto.PublicKey{"k1": key.Public()},
	})
	require.NoError(t, err)
	return b
}

func namespaced(spec v1alpha1.BundlePublicationSpec) *v1alpha1.BundlePublication {
	return &v1alpha1.BundlePublication{
		ObjectMeta: metav1.ObjectMeta{Name: "trust", Namespace: "payments", UID: "u1"}, Spec: spec,
	}
}

func cluster(spec v1alpha1.ClusterBundlePublicationSpec) *v1alpha1.ClusterBundlePublication {
	return &v1alpha1.ClusterBundlePublication{ObjectMeta: metav1.ObjectMeta{Name: "trust", UID: "u1"}, Spec: spec}
}

func keys(t *testing.T, o *unstructured.Unstructured) []string {
	t.Helper()
	data, _, err := unstructured.NestedMap(o.Object, "data")
	require.NoError(t, err)
	var names []string
	for name := range data {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestData(t *testing.T) {
	eu, us, tokens := of(t, "eu.example.org"), of(t, "us.example.org"), jwtOnly(t, "tokens.example.org")
	long := of(t, strings.Repeat("a.", 125)+"aaaa")
	for name, c := range map[string]struct {
		domains  []string
		bundles  []*bundle.Bundle
		data     []v1alpha1.DataEntry
		keys     []string
		refusals []string
		absent   []string
	}{
		"every form of every domain": {
			bundles: []*bundle.Bundle{eu, tokens},
			data: []v1alpha1.DataEntry{
				{Key: "{trustDomain}.pem", Format: "pem"}, {Key: "{trustDomain}.json", Format: "spiffe"},
				{Key: "{trustDomain}.jwks", Format: "jwks"}, {Key: "map.json", Format: "map"},
			},
			keys: []string{
				"eu.example.org.json", "eu.example.org.pem", "map.json", "tokens.example.org.json",
				"tokens.example.org.jwks",
			},
		},
		"one domain under a fixed key": {
			domains: []string{"us.example.org"}, bundles: []*bundle.Bundle{eu, us},
			data: []v1alpha1.DataEntry{{Key: "ca.crt", Format: "pem"}}, keys: []string{"ca.crt"},
		},
		"a fixed key would merge domains": {
			bundles: []*bundle.Bundle{eu},
			data:    []v1alpha1.DataEntry{{Key: "ca.crt", Format: "pem"}},
			refusals: []string{"The key ca.crt would merge trust domains, each of which could then impersonate the " +
				"others: put {trustDomain} into the key, name one trust domain, or use the form map."},
		},
		"a map has no key for each domain": {
			bundles: []*bundle.Bundle{eu},
			data:    []v1alpha1.DataEntry{{Key: "{trustDomain}", Format: "map"}},
			refusals: []string{
				"The key {trustDomain} is of a map, which holds all trust domains: write it without {trustDomain}.",
			},
		},
		"one key twice": {
			bundles: []*bundle.Bundle{eu},
			data: []v1alpha1.DataEntry{
				{Key: "{trustDomain}", Format: "pem"}, {Key: "{trustDomain}", Format: "spiffe"},
			},
			keys:     []string{"eu.example.org"},
			refusals: []string{"The key eu.example.org is written twice: give each form a key of its own."},
		},
		"a key that is too long does not hold up the others": {
			bundles: []*bundle.Bundle{eu, long},
			data:    []v1alpha1.DataEntry{{Key: "{trustDomain}.pem", Format: "pem"}},
			keys:    []string{"eu.example.org.pem"},
			refusals: []string{`"` + long.TrustDomain().Name() + `.pem" cannot be a key: must be no more than 253 ` +
				`characters.`},
		},
		"trust that has ended": {
			domains: []string{"eu.example.org", "gone.example.org"}, bundles: []*bundle.Bundle{eu, us},
			data: []v1alpha1.DataEntry{{Key: "{trustDomain}.pem", Format: "pem"}},
			keys: []string{"eu.example.org.pem"}, absent: []string{"gone.example.org"},
		},
		"the object stays without trust": {
			domains: []string{"gone.example.org"},
			data:    []v1alpha1.DataEntry{{Key: "ca.crt", Format: "pem"}}, absent: []string{"gone.example.org"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := plan.Namespaced(namespaced(v1alpha1.BundlePublicationSpec{
				TrustDomains: c.domains, ConfigMap: &v1alpha1.DataTarget{Data: c.data},
			}), plan.Input{Bundles: c.bundles})
			require.Len(t, p.Objects, 1)
			require.Equal(t, plan.Name{
				GroupKind: schema.GroupKind{Kind: "ConfigMap"}, Namespace: "payments", Name: "trust",
			}, plan.NameOf(p.Objects[0]))
			require.Equal(t, c.keys, keys(t, p.Objects[0]))
			require.Equal(t, c.refusals, p.Refusals)
			require.Equal(t, c.absent, p.Absent)
		})
	}
}

func TestDataTooLarge(t *testing.T) {
	var domains []*bundle.Bundle
	for _, td := range []string{"a.example.org", "b.example.org", "c.example.org"} {
		var content bundle.Content
		for range 800 {
			content.X509Authorities = append(content.X509Authorities, authority(t, td))
		}
		b, err := bundle.New(spiffeid.RequireTrustDomainFromString(td), content)
		require.NoError(t, err)
		domains = append(domains, b)
	}
	p := plan.Namespaced(namespaced(v1alpha1.BundlePublicationSpec{ConfigMap: &v1alpha1.DataTarget{
		Data: []v1alpha1.DataEntry{{Key: "{trustDomain}.pem", Format: "pem"}},
	}}), plan.Input{Bundles: domains})
	require.Equal(t, []string{"a.example.org.pem", "b.example.org.pem"}, keys(t, p.Objects[0]))
	require.Len(t, p.Refusals, 1)
	require.Contains(t, p.Refusals[0], "The key c.example.org.pem with ")
	require.Contains(t, p.Refusals[0],
		" does not fit: an object holds 1048576. Publish fewer trust domains in one object.")
	require.Len(t, p.Bundles, 2)
}

func TestSecrets(t *testing.T) {
	p := plan.Cluster(cluster(v1alpha1.ClusterBundlePublicationSpec{Secret: &v1alpha1.SpreadTarget{
		DataTarget: v1alpha1.DataTarget{
			Name: "ca", Labels: map[string]string{"istio.io/config": "true", plan.ManagedByLabel: "me"},
			Annotations: map[string]string{"entente.io/applied": "x"},
			Data:        []v1alpha1.DataEntry{{Key: "{trustDomain}.pem", Format: "pem"}},
		},
	}}), plan.Input{
		Bundles: []*bundle.Bundle{of(t, "eu.example.org")}, Namespaces: []string{"b", "a", "c"},
		SecretNamespaces: []string{"a", "b"},
	})
	require.Equal(t, []string{
		"The label app.kubernetes.io/managed-by is the controller's own: leave it out.",
		"The annotation entente.io/applied is the controller's own: leave it out.",
		"The controller writes no Secrets in the namespace c: add it to --secret-namespaces, and bind the role " +
			"entente-kubernetes-secrets there.",
	}, p.Refusals)
	require.Len(t, p.Objects, 2)
	require.Equal(t, "a", p.Objects[0].GetNamespace())
	require.Equal(t, map[string]string{"istio.io/config": "true", plan.ManagedByLabel: plan.Manager},
		p.Objects[0].GetLabels())
}

func TestTrustBundles(t *testing.T) {
	eu, under := of(t, "eu.example.org"), of(t, "under_score.example.org")
	in := plan.Input{
		Bundles: []*bundle.Bundle{eu, jwtOnly(t, "tokens.example.org"), under}, TrustBundles: trustBundles,
	}
	target := func(signer string) *v1alpha1.ClusterBundlePublication {
		return cluster(v1alpha1.ClusterBundlePublicationSpec{
			ClusterTrustBundle: &v1alpha1.ClusterTrustBundleTarget{SignerDomain: signer},
		})
	}
	p := plan.Cluster(target("entente.io"), in)
	require.Len(t, p.Objects, 1)
	require.Equal(t, "entente.io:eu.example.org:bundle", p.Objects[0].GetName())
	require.Equal(t, map[string]any{"signerName": "entente.io/eu.example.org", "trustBundle": string(eu.PEM())},
		p.Objects[0].Object["spec"])
	require.Len(t, p.Refusals, 1)
	require.Regexp(t, `^The trust domain under_score\.example\.org cannot be in the name of a signer: a lowercase .* `+
		`Publish it in a ConfigMap\.$`, p.Refusals[0])

	for signer, refusal := range map[string]string{
		"entente": `"entente" cannot be the domain of a signer: Kubernetes requires two labels at least, as in ` +
			`entente.io.`,
		strings.Repeat("a.", 130) + "a": `"` + strings.Repeat("a.", 130) + `a" cannot be the domain of a signer: it ` +
			`has more than 253 characters.`,
	} {
		p := plan.Cluster(target(signer), in)
		require.Equal(t, []string{refusal}, p.Refusals)
		require.Empty(t, p.Objects)
		require.Equal(t, trustBundles, p.Kind)
	}
}

func TestFederatedDomains(t *testing.T) {
	eu := of(t, "eu.example.org")
	target := v1alpha1.ClusterFederatedTrustDomainTarget{
		ClassName: "mesh", BundleEndpointURL: "https://hub.example.org:7443/bundles/{trustDomain}",
		BundleEndpointProfile: v1alpha1.BundleEndpointProfile{
			Type: "https_spiffe", EndpointSPIFFEID: "spiffe://hub.example.org/entente/bundle-endpoint",
		},
	}
	in := plan.Input{Bundles: []*bundle.Bundle{eu, of(t, "under_score.example.org")}}
	p := plan.Cluster(cluster(v1alpha1.ClusterBundlePublicationSpec{ClusterFederatedTrustDomain: &target}), in)
	require.Len(t, p.Objects, 1)
	require.Equal(t, "eu.example.org", p.Objects[0].GetName())
	require.Equal(t, map[string]any{
		"trustDomain": "eu.example.org", "className": "mesh",
		"bundleEndpointURL": "https://hub.example.org:7443/bundles/eu.example.org",
		"bundleEndpointProfile": map[string]any{
			"type": "https_spiffe", "endpointSPIFFEID": "spiffe://hub.example.org/entente/bundle-endpoint",
		},
		"trustDomainBundle": string(eu.Document()),
	}, p.Objects[0].Object["spec"])
	require.Len(t, p.Refusals, 1)
	require.Contains(t, p.Refusals[0],
		"The trust domain under_score.example.org cannot be the name of a ClusterFederatedTrustDomain: ")

	target.BundleEndpointURL = "https://user@hub.example.org"
	p = plan.Cluster(cluster(v1alpha1.ClusterBundlePublicationSpec{ClusterFederatedTrustDomain: &target}), in)
	require.Equal(t, []string{
		`"https://user@hub.example.org" is not the URL of a bundle endpoint: write https://HOST:PORT/PATH.`,
	}, p.Refusals)
	require.Empty(t, p.Objects)
}

func TestCompare(t *testing.T) {
	eu, us := of(t, "eu.example.org"), of(t, "us.example.org")
	publication := namespaced(v1alpha1.BundlePublicationSpec{ConfigMap: &v1alpha1.DataTarget{
		Data: []v1alpha1.DataEntry{{Key: "{trustDomain}.pem", Format: "pem"}},
	}})
	both := plan.Namespaced(publication, plan.Input{Bundles: []*bundle.Bundle{eu, us}}).Objects[0]
	one := plan.Namespaced(publication, plan.Input{Bundles: []*bundle.Bundle{eu}}).Objects[0]
	none := plan.Namespaced(publication, plan.Input{}).Objects[0]
	emptied := none.DeepCopy()
	delete(emptied.Object, "data") // as Kubernetes returns it
	for name, c := range map[string]struct {
		planned, actual *unstructured.Unstructured
		change          func(*unstructured.Unstructured)
		upToDate        bool
	}{
		"as planned":           {planned: both, actual: both, upToDate: true},
		"no data":              {planned: none, actual: emptied, upToDate: true},
		"a key is missing":     {planned: both, actual: one},
		"a key is to go":       {planned: one, actual: both},
		"the last key is gone": {planned: none, actual: one},
		"a foreign key": {planned: both, actual: both, upToDate: true, change: func(u *unstructured.Unstructured) {
			require.NoError(t, unstructured.SetNestedField(u.Object, "x", "data", "other"))
		}},
		"a changed key": {planned: both, actual: both, change: func(u *unstructured.Unstructured) {
			require.NoError(t, unstructured.SetNestedField(u.Object, "x", "data", "eu.example.org.pem"))
		}},
		"a changed label": {planned: both, actual: both, change: func(u *unstructured.Unstructured) {
			u.SetLabels(map[string]string{plan.ManagedByLabel: "me"})
		}},
		"no owner": {planned: both, actual: both, change: func(u *unstructured.Unstructured) {
			u.SetOwnerReferences(nil)
		}},
		"an earlier publication of the name": {planned: both, actual: both, change: func(u *unstructured.Unstructured) {
			owners := u.GetOwnerReferences()
			owners[0].UID = "u0"
			u.SetOwnerReferences(owners)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			actual := c.actual.DeepCopy()
			if c.change != nil {
				c.change(actual)
			}
			require.Equal(t, c.upToDate, plan.UpToDate(c.planned, actual))
		})
	}
}

func TestOwns(t *testing.T) {
	publication := namespaced(v1alpha1.BundlePublicationSpec{ConfigMap: &v1alpha1.DataTarget{
		Data: []v1alpha1.DataEntry{{Key: "map.json", Format: "map"}},
	}})
	object := plan.Namespaced(publication, plan.Input{}).Objects[0]
	owner := plan.OwnerOf(publication)
	require.True(t, plan.Owns(owner, object))
	again := owner
	again.UID = "u2" // the publication was deleted and made again
	require.True(t, plan.Owns(again, object))
	for name, change := range map[string]func(*metav1.OwnerReference){
		"another name":     func(r *metav1.OwnerReference) { r.Name = "other" },
		"another kind":     func(r *metav1.OwnerReference) { r.Kind = "ClusterBundlePublication" },
		"another group":    func(r *metav1.OwnerReference) { r.APIVersion = "example.org/v1alpha1" },
		"not a controller": func(r *metav1.OwnerReference) { r.Controller = nil },
	} {
		t.Run(name, func(t *testing.T) {
			other := object.DeepCopy()
			owners := other.GetOwnerReferences()
			change(&owners[0])
			other.SetOwnerReferences(owners)
			require.False(t, plan.Owns(owner, other))
			require.Contains(t, plan.Foreign(other), "The ConfigMap payments/trust exists and ")
		})
	}
	require.Equal(t, []*unstructured.Unstructured{object}, plan.Stale(nil, []*unstructured.Unstructured{object}))
	require.Empty(t, plan.Stale([]*unstructured.Unstructured{object}, []*unstructured.Unstructured{object}))
}
