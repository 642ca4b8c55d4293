package plan

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/kubernetes/api/v1alpha1"
)

// maxDataBytes bounds a ConfigMap and a Secret, keys included: Kubernetes refuses values of more than 1 MiB.
const maxDataBytes = 1 << 20

// data adds a ConfigMap or a Secret in each namespace. It stays, with fewer keys or none, when trust ends: the kubelet
// removes a file whose key is gone, but keeps the files of an object that is gone.
func (w *writer) data(kind schema.GroupVersionKind, t v1alpha1.DataTarget, publication string, in Input) {
	w.kind = kind
	name := t.Name
	if name == "" {
		name = publication
	}
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		w.refuse("The name %q cannot be that of a %s: %s.", name, kind.Kind, problems[0])
		return
	}
	values := w.values(t.Data)
	content := make(map[string]any, len(values))
	for key, value := range values {
		if kind == Secret {
			content[key] = base64.StdEncoding.EncodeToString(value)
		} else {
			content[key] = string(value)
		}
	}
	for _, namespace := range slices.Sorted(slices.Values(in.Namespaces)) {
		if kind == Secret && !slices.Contains(in.SecretNamespaces, namespace) {
			w.refuse("The controller writes no Secrets in the namespace %s: add it to --secret-namespaces, and bind "+
				"the role entente-kubernetes-secrets there.", namespace)
			continue
		}
		w.object(namespace, name, t.Labels, t.Annotations, map[string]any{"data": maps.Clone(content)})
	}
}

// values returns the values by key.
func (w *writer) values(entries []v1alpha1.DataEntry) map[string][]byte {
	values, size := map[string][]byte{}, 0
	add := func(key string, value []byte, of ...*bundle.Bundle) {
		switch problems := validation.IsConfigMapKey(key); {
		case len(problems) > 0:
			w.refuse("%q cannot be a key: %s.", key, problems[0])
		case values[key] != nil:
			w.refuse("The key %s is written twice: give each form a key of its own.", key)
		case size+len(key)+len(value) > maxDataBytes:
			w.refuse("The key %s with %d bytes does not fit: an object holds %d. Publish fewer trust domains in one "+
				"object.", key, len(value), maxDataBytes)
		default:
			values[key] = value
			size += len(key) + len(value)
			for _, b := range of {
				w.held[b] = true
			}
		}
	}
	for _, e := range entries {
		format, each := bundle.Format(e.Format), strings.Contains(e.Key, v1alpha1.TrustDomainPlaceholder)
		switch {
		case format == bundle.FormatMap && each:
			w.refuse("The key %s is of a map, which holds all trust domains: write it without %s.", e.Key,
				v1alpha1.TrustDomainPlaceholder)
			continue
		case format == bundle.FormatMap:
			document, err := bundle.MarshalMap(w.bundles)
			if err != nil {
				w.refuse("The key %s cannot be written: %v.", e.Key, err)
				continue
			}
			add(e.Key, document, w.bundles...)
			continue
		case !each && !w.single:
			w.refuse("The key %s would merge trust domains, each of which could then impersonate the others: put %s "+
				"into the key, name one trust domain, or use the form map.", e.Key, v1alpha1.TrustDomainPlaceholder)
			continue
		}
		for _, b := range w.bundles {
			if !format.Has(b) {
				continue
			}
			value, err := format.Marshal(b)
			if err != nil {
				w.refuse("The bundle of %s cannot be written: %v.", b.TrustDomain().Name(), err)
				continue
			}
			add(filled(e.Key, b), value, b)
		}
	}
	return values
}

// filled returns a text with the name of the trust domain in place of the placeholder.
func filled(text string, b *bundle.Bundle) string {
	return strings.ReplaceAll(text, v1alpha1.TrustDomainPlaceholder, b.TrustDomain().Name())
}
