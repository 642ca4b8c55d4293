package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/kubernetes/api/v1alpha1"
)

const (
	// ManagedByLabel has the value [Manager] on every object that the controller writes, and selects what it watches.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// Manager is the field manager of the controller.
	Manager = "entente-kubernetes"
	// AppliedAnnotation is the SHA-256 of an object as it was applied. It differs when a key is to go.
	AppliedAnnotation = "entente.io/applied"
)

// The kinds of objects that are written. The version of ClusterTrustBundle is the newest that the API server has.
var (
	ConfigMap          = schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	Secret             = schema.GroupVersionKind{Version: "v1", Kind: "Secret"}
	ClusterTrustBundle = schema.GroupKind{Group: "certificates.k8s.io", Kind: "ClusterTrustBundle"}
	FederatedDomain    = schema.GroupVersionKind{
		Group: "spire.spiffe.io", Version: "v1alpha1", Kind: "ClusterFederatedTrustDomain",
	}
)

// Publication is a [v1alpha1.BundlePublication] or a [v1alpha1.ClusterBundlePublication].
type Publication interface {
	client.Object
	PublicationKind() string
	PublicationStatus() *v1alpha1.PublicationStatus
}

// Plan is what a publication should have written.
type Plan struct {
	// Kind is the kind of the objects, even if there is none.
	Kind    schema.GroupVersionKind
	Objects []*unstructured.Unstructured
	// Bundles are the bundles that the objects hold, by trust domain.
	Bundles []*bundle.Bundle
	// Absent are trust domains of the publication of which Entente has no bundle for the controller: trust in them has
	// ended, or never began.
	Absent []string
	// Refusals are sentences about what is not written.
	Refusals []string
}

// Input is what a plan depends on beside the publication.
type Input struct {
	// Bundles are all bundles that the controller may read, by trust domain.
	Bundles []*bundle.Bundle
	// Namespaces are those that the publication selects.
	Namespaces []string
	// SecretNamespaces are those that Secrets may be written in.
	SecretNamespaces []string
	// TrustBundles is the kind of cluster trust bundles in the newest version that the API server serves.
	TrustBundles schema.GroupVersionKind
}

// Namespaced returns the plan of a publication for its namespace.
func Namespaced(p *v1alpha1.BundlePublication, in Input) Plan {
	w := newWriter(p.Spec.TrustDomains, in, OwnerOf(p))
	in.Namespaces = []string{p.Namespace}
	if t := p.Spec.ConfigMap; t != nil {
		w.data(ConfigMap, *t, p.Name, in)
	} else if t := p.Spec.Secret; t != nil {
		w.data(Secret, *t, p.Name, in)
	}
	return w.plan()
}

// Cluster returns the plan of a publication for the cluster.
func Cluster(p *v1alpha1.ClusterBundlePublication, in Input) Plan {
	w := newWriter(p.Spec.TrustDomains, in, OwnerOf(p))
	switch s := p.Spec; {
	case s.ClusterTrustBundle != nil:
		w.trustBundles(in.TrustBundles, *s.ClusterTrustBundle)
	case s.ClusterFederatedTrustDomain != nil:
		w.federatedDomains(*s.ClusterFederatedTrustDomain)
	case s.ConfigMap != nil:
		w.data(ConfigMap, s.ConfigMap.DataTarget, p.Name, in)
	case s.Secret != nil:
		w.data(Secret, s.Secret.DataTarget, p.Name, in)
	}
	return w.plan()
}

// OwnerOf returns the reference to a publication by which its objects are its own.
func OwnerOf(p Publication) metav1.OwnerReference {
	isController := true
	return metav1.OwnerReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: p.PublicationKind(), Name: p.GetName(), UID: p.GetUID(),
		Controller: &isController,
	}
}

// writer makes a plan.
type writer struct {
	kind     schema.GroupVersionKind
	owner    metav1.OwnerReference
	bundles  []*bundle.Bundle
	single   bool // the publication names one trust domain
	held     map[*bundle.Bundle]bool
	objects  []*unstructured.Unstructured
	absent   []string
	refusals []string
}

func newWriter(names []string, in Input, owner metav1.OwnerReference) *writer {
	all := in.Bundles
	w := &writer{owner: owner, bundles: all, single: len(names) == 1, held: map[*bundle.Bundle]bool{}}
	if len(names) == 0 {
		return w
	}
	w.bundles = nil
	for _, name := range slices.Sorted(slices.Values(names)) {
		i := slices.IndexFunc(all, func(b *bundle.Bundle) bool { return b.TrustDomain().Name() == name })
		if i < 0 {
			w.absent = append(w.absent, name)
			continue
		}
		w.bundles = append(w.bundles, all[i])
	}
	return w
}

func (w *writer) refuse(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(w.refusals, text) { // once for many namespaces
		w.refusals = append(w.refusals, text)
	}
}

func (w *writer) plan() Plan {
	p := Plan{Kind: w.kind, Objects: w.objects, Absent: w.absent, Refusals: w.refusals}
	for _, b := range w.bundles {
		if w.held[b] {
			p.Bundles = append(p.Bundles, b)
		}
	}
	return p
}

// object adds an object with content, a map of its fields beside metadata.
func (w *writer) object(namespace, name string, labels, annotations map[string]string, content map[string]any) {
	all := map[string]any{}
	for key, value := range labels {
		if key == ManagedByLabel {
			w.refuse("The label %s is the controller's own: leave it out.", ManagedByLabel)
			continue
		}
		all[key] = value
	}
	all[ManagedByLabel] = Manager
	notes := map[string]any{}
	for key, value := range annotations {
		if strings.HasPrefix(key, v1alpha1.GroupVersion.Group+"/") {
			w.refuse("The annotation %s is the controller's own: leave it out.", key)
			continue
		}
		notes[key] = value
	}
	u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{
		"name": name, "labels": all, "annotations": notes,
	}}}
	u.SetGroupVersionKind(w.kind)
	if namespace != "" {
		u.SetNamespace(namespace)
	}
	u.SetOwnerReferences([]metav1.OwnerReference{w.owner})
	for field, value := range content {
		u.Object[field] = value
	}
	written, err := json.Marshal(u.Object)
	if err != nil { // it holds strings and maps alone
		w.refuse("The %s %s cannot be written: %v.", w.kind.Kind, name, err)
		return
	}
	sum := sha256.Sum256(written)
	notes[AppliedAnnotation] = hex.EncodeToString(sum[:])
	w.objects = append(w.objects, u)
}
