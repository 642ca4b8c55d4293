package kubernetes_test

import (
	"context"
	"encoding/base64"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	runtimeclient "sigs.k8s.io/controller-runtime/pkg/client"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/kubernetes/publish/plan"
)

// TestPublications publishes bundles of a real member into a real API server, with the rights of the manifest. The
// parts use one controller, each its own trust domains and names.
func TestPublications(t *testing.T) {
	w := newWorld(t)
	for name, part := range map[string]func(*testing.T, *world){
		"a ClusterTrustBundle follows its bundle":        trustBundleFollows,
		"a missing right is reported and heals":          missingRight,
		"a ConfigMap loses the trust that ends":          configMapLoses,
		"an object of somebody else is left alone":       foreignObject,
		"a changed and a deleted object heal":            objectsHeal,
		"a ConfigMap in every selected namespace":        spread,
		"Secrets where they are allowed":                 secrets,
		"spire-controller-manager installed later":       federatedDomains,
		"an unchanged bundle writes nothing":             unchanged,
		"what the API server refuses of a specification": refusedByServer,
	} {
		t.Run(name, func(t *testing.T) { part(t, w) })
	}
	// It installs what the part about spire-controller-manager has to miss first.
	t.Run("a stolen account changes nothing of others", func(t *testing.T) { stolenAccount(t, w) })
	t.Run("an outage of the API server", func(t *testing.T) { outage(t, w) })
}

func trustBundleFollows(t *testing.T, w *world) {
	const domain, object = "follow.example.org", "entente.io:follow.example.org:bundle"
	pem := func() string {
		o := w.get(t, trustBundle, "", object)
		if o == nil {
			return ""
		}
		signer, _, err := unstructured.NestedString(o.Object, "spec", "signerName")
		require.NoError(t, err)
		require.Equal(t, "entente.io/"+domain, signer)
		text, _, err := unstructured.NestedString(o.Object, "spec", "trustBundle")
		require.NoError(t, err)
		return text
	}
	w.apply(t, `
apiVersion: entente.io/v1alpha1
kind: ClusterBundlePublication
metadata: {name: follow}
spec:
  trustDomains: [follow.example.org]
  clusterTrustBundle: {labels: {team: mesh}}
`)
	require.Equal(t,
		"Every object holds the present bundles. Entente shows the controller no bundle of follow.example.org.",
		w.awaitCondition(t, publications, "", "follow", "Published"))
	first := w.host(t, domain)
	until(t, "the bundle is published", func() bool { return pem() == string(w.bundle(t, domain).PEM()) })
	require.Equal(t, "mesh", w.get(t, trustBundle, "", object).GetLabels()["team"])

	_, err := w.admin.Authorities().RotateAuthorities(t.Context(), &ententev1.RotateAuthoritiesRequest{
		TrustDomain: domain, Anchors: true,
	})
	require.NoError(t, err)
	until(t, "the next root is published", func() bool {
		now := w.bundle(t, domain)
		return !now.SameKeys(first) && string(now.PEM()) != string(first.PEM()) && pem() == string(now.PEM())
	})
	until(t, "the status has the digest and the sequence", func() bool {
		list, _, err := unstructured.NestedSlice(w.get(t, publications, "", "follow").Object, "status", "bundles")
		require.NoError(t, err)
		now := w.bundle(t, domain)
		sequence, ok := now.Sequence()
		require.True(t, ok)
		return len(list) == 1 && entry(t, list[0], domain, now, sequence)
	})
	require.Contains(t, w.server.Kubectl(t, "", "get", "cbp", "follow"), "follow   True        Published   1         1")

	w.end(t, domain)
	ended := time.Now()
	until(t, "trust that has ended is removed", func() bool { return w.get(t, trustBundle, "", object) == nil })
	t.Logf("trust that ended left the ClusterTrustBundle within %s", time.Since(ended).Round(time.Millisecond))
}

// outage ends trust while the API server is away, for longer than the Lease lasts: the controller ends by itself.
func outage(t *testing.T, w *world) {
	w.host(t, "outage.example.org")
	w.apply(t, `
apiVersion: entente.io/v1alpha1
kind: ClusterBundlePublication
metadata: {name: outage}
spec:
  trustDomains: [outage.example.org]
  clusterTrustBundle: {}
`)
	const object = "entente.io:outage.example.org:bundle"
	until(t, "the bundle is published", func() bool { return w.get(t, trustBundle, "", object) != nil })
	w.server.Stop(t)
	w.end(t, "outage.example.org")
	until(t, "the controller has lost its Lease", func() bool {
		select {
		case <-w.lost:
			return true
		default:
			return false
		}
	})
	w.server.Resume(t)
	until(t, "trust that ended during the outage is removed", func() bool {
		return w.get(t, trustBundle, "", object) == nil
	})
}

func missingRight(t *testing.T, w *world) {
	w.host(t, "right.example.org")
	w.apply(t, `
apiVersion: entente.io/v1alpha1
kind: ClusterBundlePublication
metadata: {name: right}
spec:
  trustDomains: [right.example.org]
  clusterTrustBundle: {signerDomain: other.example.com}
`)
	require.Contains(t, w.awaitCondition(t, publications, "", "right", "Forbidden"),
		`user not permitted to attest for signerName "other.example.com/right.example.org"`)
	require.Nil(t, w.get(t, trustBundle, "", "other.example.com:right.example.org:bundle"))
	w.apply(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: attest-other}
rules:
  - {apiGroups: [certificates.k8s.io], resources: [signers], resourceNames: [other.example.com/*], verbs: [attest]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: attest-other}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: attest-other}
subjects: [{kind: ServiceAccount, name: entente-kubernetes, namespace: entente}]
`)
	w.awaitCondition(t, publications, "", "right", "Published")
	require.NotNil(t, w.get(t, trustBundle, "", "other.example.com:right.example.org:bundle"))
	lastError, _, err := unstructured.NestedString(w.get(t, publications, "", "right").Object, "status", "lastError")
	require.NoError(t, err)
	require.Contains(t, lastError, "user not permitted to attest")
}

func configMapLoses(t *testing.T, w *world) {
	stays, ends := w.host(t, "stays.example.org"), w.host(t, "ends.example.org")
	w.apply(t, `
apiVersion: entente.io/v1alpha1
kind: BundlePublication
metadata: {name: loses, namespace: default}
spec:
  trustDomains: [stays.example.org, ends.example.org]
  configMap:
    labels: {istio.io/config: "true"}
    data:
      - {key: "{trustDomain}.pem", format: pem}
      - {key: "{trustDomain}.json", format: spiffe}
      - {key: "{trustDomain}.jwks", format: jwks}
      - {key: bundles.json, format: map}
`)
	holds := func(bundles ...*bundle.Bundle) func() bool {
		want := map[string]string{}
		document, err := bundle.MarshalMap(bundles)
		require.NoError(t, err)
		want["bundles.json"] = string(document)
		for _, b := range bundles {
			keys, err := b.JWKS()
			require.NoError(t, err)
			name := b.TrustDomain().Name()
			want[name+".pem"], want[name+".json"] = string(b.PEM()), string(b.Document())
			want[name+".jwks"] = string(keys)
		}
		return func() bool { return maps.Equal(want, w.data(t, configMap, "default", "loses")) }
	}
	until(t, "every form of both domains", holds(stays, ends))
	require.Equal(t, "true", w.get(t, configMap, "default", "loses").GetLabels()["istio.io/config"])
	w.end(t, "ends.example.org")
	ended := time.Now()
	until(t, "the forms of one domain", holds(stays))
	t.Logf("trust that ended left the ConfigMap within %s", time.Since(ended).Round(time.Millisecond))

	w.server.Kubectl(t, "", "delete", "bp", "loses")
	until(t, "the ConfigMap ends with its publication", func() bool {
		return w.get(t, configMap, "default", "loses") == nil
	})
}

func foreignObject(t *testing.T, w *world) {
	b := w.host(t, "foreign.example.org")
	w.server.Kubectl(t, "", "create", "configmap", "theirs", "--from-literal=ca.crt=theirs")
	w.apply(t, `
apiVersion: entente.io/v1alpha1
kind: BundlePublication
metadata: {name: theirs, namespace: default}
spec:
  trustDomains: [foreign.example.org]
  configMap: {data: [{key: ca.crt, format: pem}]}
`)
	require.Equal(t, "The ConfigMap default/theirs exists and was not written by this controller: delete it, or "+
		"choose another name.", w.awaitCondition(t, publication, "default", "theirs", "ForeignObject"))
	require.Equal(t, map[string]string{"ca.crt": "theirs"}, w.data(t, configMap, "default", "theirs"))
	w.server.Kubectl(t, "", "delete", "configmap", "theirs")
	w.awaitCondition(t, publication, "default", "theirs", "Published")
	require.Equal(t, map[string]string{"ca.crt": string(b.PEM())}, w.data(t, configMap, "default", "theirs"))

	w.apply(t, `
apiVersion: entente.io/v1alpha1
kind: BundlePublication
metadata: {name: second, namespace: default}
spec:
  trustDomains: [foreign.example.org]
  configMap: {name: theirs, data: [{key: ca.crt, format: pem}]}
`)
	require.Equal(t, "The ConfigMap default/theirs exists and belongs to BundlePublication theirs: delete it, or "+
		"choose another name.", w.awaitCondition(t, publication, "default", "second", "ForeignObject"))
}

func objectsHeal(t *testing.T, w *world) {
	want := map[string]string{"ca.crt": string(w.host(t, "heal.example.org").PEM())}
	healed := func() bool { return maps.Equal(want, w.data(t, configMap, "default", "heal")) }
	w.apply(t, `
apiVersion: entente.io/v1alpha1
kind: BundlePublication
metadata: {name: heal, namespace: default}
spec:
  trustDomains: [heal.example.org]
  configMap: {data: [{key: ca.crt, format: pem}]}
`)
	until(t, "the ConfigMap is written", healed)

	was := w.get(t, configMap, "default", "heal").GetUID()
	w.server.Kubectl(t, "", "delete", "configmap", "heal")
	until(t, "a deleted ConfigMap is written again", healed)
	require.NotEqual(t, was, w.get(t, configMap, "default", "heal").GetUID())

	w.server.Kubectl(t, `
apiVersion: v1
kind: ConfigMap
metadata: {name: heal, namespace: default}
data: {ca.crt: rogue}
`, "apply", "--server-side", "--field-manager=rogue", "--force-conflicts", "-f", "-")
	until(t, "a key that another field manager took is taken back", healed)

	// Without the label the object leaves the controller's cache.
	w.server.Kubectl(t, "", "label", "configmap", "heal", "app.kubernetes.io/managed-by-")
	until(t, "the label is back", func() bool {
		return w.get(t, configMap, "default", "heal").GetLabels()[plan.ManagedByLabel] == plan.Manager
	})
}

func spread(t *testing.T, w *world) {
	b := w.host(t, "spread.example.org")
	for _, namespace := range []string{"spread-a", "spread-b"} {
		w.server.Kubectl(t, "", "create", "namespace", namespace)
	}
	w.server.Kubectl(t, "", "label", "namespace", "spread-a", "kube-public", "trust=yes")
	w.apply(t, `
apiVersion: entente.io/v1alpha1
kind: ClusterBundlePublication
metadata: {name: spread}
spec:
  trustDomains: [spread.example.org]
  configMap:
    name: linkerd-identity-trust-roots
    namespaceSelector: {matchLabels: {trust: "yes"}}
    data: [{key: ca-bundle.crt, format: pem}]
`)
	has := func(namespace string) bool {
		return w.data(t, configMap, namespace, "linkerd-identity-trust-roots")["ca-bundle.crt"] == string(b.PEM())
	}
	until(t, "the selected namespace", func() bool { return has("spread-a") })
	require.False(t, has("kube-public"))
	require.False(t, has("spread-b"))
	w.server.Kubectl(t, "", "label", "namespace", "spread-b", "trust=yes")
	until(t, "a namespace that is selected later", func() bool { return has("spread-b") })
	w.server.Kubectl(t, "", "label", "namespace", "spread-a", "trust-")
	until(t, "a namespace that is selected no more", func() bool {
		return w.get(t, configMap, "spread-a", "linkerd-identity-trust-roots") == nil
	})
	w.server.Kubectl(t, "", "delete", "cbp", "spread")
	until(t, "a ConfigMap ends with its publication", func() bool { return !has("spread-b") })
}

func secrets(t *testing.T, w *world) {
	b := w.host(t, "secret.example.org")
	const manifest = `
apiVersion: entente.io/v1alpha1
kind: BundlePublication
metadata: {name: ca, namespace: NAMESPACE}
spec:
  trustDomains: [secret.example.org]
  secret: {name: ca, data: [{key: ca.crt, format: pem}]}
`
	w.apply(t, in(manifest, "default"))
	require.Equal(t, "The controller writes no Secrets in the namespace default: add it to --secret-namespaces, and "+
		"bind the role entente-kubernetes-secrets there.", w.awaitCondition(t, publication, "default", "ca", "Refused"))
	w.apply(t, in(manifest, "secrets"))
	w.awaitCondition(t, publication, "secrets", "ca", "Published")
	require.Equal(t, map[string]string{"ca.crt": base64.StdEncoding.EncodeToString(b.PEM())},
		w.data(t, secret, "secrets", "ca"))
	w.server.Kubectl(t, "", "delete", "secret", "ca", "--namespace=secrets")
	until(t, "a deleted Secret is written again", func() bool { return w.get(t, secret, "secrets", "ca") != nil })
}

func federatedDomains(t *testing.T, w *world) {
	b := w.host(t, "spire.example.org")
	w.apply(t, `
apiVersion: entente.io/v1alpha1
kind: ClusterBundlePublication
metadata: {name: spire}
spec:
  trustDomains: [spire.example.org]
  clusterFederatedTrustDomain:
    bundleEndpointURL: "https://eu.example.org:7443/bundles/{trustDomain}"
    bundleEndpointProfile: {type: https_spiffe, endpointSPIFFEID: spiffe://eu.example.org/entente/bundle-endpoint}
`)
	require.Contains(t, w.awaitCondition(t, publications, "", "spire", "Unsupported"),
		`no matches for kind "ClusterFederatedTrustDomain"`)
	w.server.Kubectl(t, "", "apply", "-f", "testdata/spire.spiffe.io_clusterfederatedtrustdomains.yaml")
	w.awaitCondition(t, publications, "", "spire", "Published")
	spec, _, err := unstructured.NestedMap(w.get(t, federated, "", "spire.example.org").Object, "spec")
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"trustDomain":       "spire.example.org",
		"bundleEndpointURL": "https://eu.example.org:7443/bundles/spire.example.org",
		"bundleEndpointProfile": map[string]any{
			"type": "https_spiffe", "endpointSPIFFEID": "spiffe://eu.example.org/entente/bundle-endpoint",
		},
		"trustDomainBundle": string(b.Document()),
	}, spec)
	w.end(t, "spire.example.org")
	until(t, "trust that has ended is removed", func() bool {
		return w.get(t, federated, "", "spire.example.org") == nil
	})
}

// unchanged lets another bundle change, after which every publication is reconciled.
func unchanged(t *testing.T, w *world) {
	w.host(t, "still.example.org")
	w.apply(t, `
apiVersion: entente.io/v1alpha1
kind: BundlePublication
metadata: {name: still, namespace: default}
spec:
  trustDomains: [still.example.org]
  configMap: {data: [{key: ca.crt, format: pem}]}
---
apiVersion: entente.io/v1alpha1
kind: BundlePublication
metadata: {name: moves, namespace: default}
spec:
  configMap: {data: [{key: bundles.json, format: map}]}
`)
	w.awaitCondition(t, publication, "default", "still", "Published")
	w.awaitCondition(t, publication, "default", "moves", "Published")
	versions := func() [2]string {
		return [2]string{
			w.get(t, configMap, "default", "still").GetResourceVersion(),
			w.get(t, publication, "default", "still").GetResourceVersion(),
		}
	}
	before := versions()
	for _, domain := range []string{"move-a.example.org", "move-b.example.org"} {
		w.host(t, domain)
		until(t, "another publication has moved", func() bool {
			all := w.data(t, configMap, "default", "moves")["bundles.json"]
			return all != "" && strings.Contains(all, domain)
		})
	}
	require.Equal(t, before, versions())
}

func refusedByServer(t *testing.T, w *world) {
	const head = "apiVersion: entente.io/v1alpha1\nkind: ClusterBundlePublication\nmetadata: {name: never}\n"
	for _, c := range []struct{ spec, refusal string }{
		{
			`{}`,
			"exactly one of the fields in [clusterTrustBundle clusterFederatedTrustDomain configMap secret] must be " +
				"set",
		},
		{
			`{clusterTrustBundle: {}, configMap: {namespaceSelector: {}, data: [{key: a, format: pem}]}}`,
			"exactly one of the fields in ",
		},
		{`{configMap: {namespaceSelector: {}, data: [{key: a, format: der}]}}`, `Unsupported value: "der"`},
		{
			`{clusterFederatedTrustDomain: {bundleEndpointURL: "http://a", bundleEndpointProfile: {type: https_web}}}`,
			"should match '^https://[^@]+$'",
		},
		{
			`{clusterFederatedTrustDomain: {bundleEndpointURL: "https://a", ` +
				`bundleEndpointProfile: {type: https_spiffe}}}`,
			"(self.type == 'https_spiffe') == has(self.endpointSPIFFEID)",
		},
	} {
		require.Contains(t, w.server.Refuses(t, head+"spec: "+c.spec+"\n", "apply", "-f", "-"), c.refusal)
	}
}

// stolenAccount uses the rights of the controller as whoever has its token can.
func stolenAccount(t *testing.T, w *world) {
	w.server.Kubectl(t, "", "apply", "-f", "testdata/spire.spiffe.io_clusterfederatedtrustdomains.yaml")
	w.server.Kubectl(t, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout="+patience.String())
	thief, err := runtimeclient.New(w.server.Account(t, "entente", "entente-kubernetes"),
		runtimeclient.Options{Scheme: runtime.NewScheme()})
	require.NoError(t, err)
	const (
		kube    = "entente-kubernetes writes nothing in the namespaces kube-*"
		foreign = "entente-kubernetes changes only objects that it made"
		form    = "what entente-kubernetes writes has the label app.kubernetes.io/managed-by=entente-kubernetes and " +
			"belongs to a publication"
	)
	refuses := func(err error, message string) {
		t.Helper()
		require.True(t, apierrors.IsForbidden(err) || apierrors.IsInvalid(err), err)
		require.ErrorContains(t, err, message)
	}
	object := func(kind schema.GroupVersionKind, namespace, name string) *unstructured.Unstructured {
		o := &unstructured.Unstructured{Object: map[string]any{}}
		o.SetGroupVersionKind(kind)
		o.SetNamespace(namespace)
		o.SetName(name)
		switch kind {
		case trustBundle:
			o.Object["spec"] = map[string]any{"trustBundle": string(w.bundle(t, home).PEM())}
		case federated:
			o.Object["spec"] = map[string]any{
				"trustDomain": "victim.example.org", "bundleEndpointURL": "https://victim.example.org",
				"bundleEndpointProfile": map[string]any{"type": "https_web"},
			}
		}
		return o
	}
	// The owner is of a kind that the running controller does not follow: it removes what has lost its publication.
	own := func(o *unstructured.Unstructured) *unstructured.Unstructured {
		o.SetLabels(map[string]string{plan.ManagedByLabel: plan.Manager})
		controller := true
		o.SetOwnerReferences([]metav1.OwnerReference{{
			APIVersion: publication.GroupVersion().String(), Kind: "Stolen", Name: "p", UID: "1",
			Controller: &controller,
		}})
		return o
	}
	patch := runtimeclient.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{
		"app.kubernetes.io/managed-by":"entente-kubernetes"}}}`))

	for _, o := range []*unstructured.Unstructured{
		object(configMap, "kube-system", "coredns"), object(configMap, "default", "app"),
		object(secret, "secrets", "password"), object(trustBundle, "", "theirs"), object(federated, "", "theirs"),
	} {
		name := o.GetKind() + " " + o.GetName()
		require.NoError(t, w.api.Create(t.Context(), o.DeepCopy()), name)
		t.Cleanup(func() { _ = w.api.Delete(context.Background(), o) })
		until(t, "the policy counts for the "+name, func() bool { // the API server reads it within a second or so
			return thief.Patch(t.Context(), o.DeepCopy(), patch, runtimeclient.DryRunAll) != nil
		})
		refused := foreign
		if o.GetNamespace() == "kube-system" {
			refused = kube
		}
		refuses(thief.Patch(t.Context(), o.DeepCopy(), patch), refused)
		refuses(thief.Delete(t.Context(), o.DeepCopy()), refused)
		require.Empty(t, w.get(t, o.GroupVersionKind(), o.GetNamespace(), o.GetName()).GetLabels(), name)
	}
	refuses(thief.Create(t.Context(), own(object(configMap, "kube-system", "new"))), kube)
	for _, o := range []*unstructured.Unstructured{
		object(configMap, "default", "new"), object(secret, "secrets", "new"), object(trustBundle, "", "new"),
		object(federated, "", "new"),
	} {
		refuses(thief.Create(t.Context(), o.DeepCopy()), form)
		require.NoError(t, thief.Create(t.Context(), own(o.DeepCopy())), o.GetKind())
		refuses(thief.Patch(t.Context(), o.DeepCopy(), runtimeclient.RawPatch(types.MergePatchType,
			[]byte(`{"metadata":{"ownerReferences":null}}`))), form)
		require.NoError(t, thief.Delete(t.Context(), o.DeepCopy()), o.GetKind())
	}
}
