package plan

import (
	"fmt"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/kubernetes/api/v1alpha1"
)

// maxTrustBundleBytes bounds the certificates of a ClusterTrustBundle (MaxTrustBundleSize of certificates.k8s.io).
const maxTrustBundleBytes = 1 << 20

// trustBundles adds a ClusterTrustBundle for each trust domain with X.509 authorities; Kubernetes has no empty one.
func (w *writer) trustBundles(kind schema.GroupVersionKind, t v1alpha1.ClusterTrustBundleTarget) {
	w.kind = kind
	if problem := notSignerDomain(t.SignerDomain); problem != "" {
		w.refuse("%q cannot be the domain of a signer: %s.", t.SignerDomain, problem)
		return
	}
	for _, b := range w.bundles {
		td := b.TrustDomain().Name()
		if !bundle.FormatPEM.Has(b) {
			continue
		}
		if problem := notSignerPath(td); problem != "" {
			w.refuse("The trust domain %s cannot be in the name of a signer: %s. Publish it in a ConfigMap.", td,
				problem)
			continue
		}
		pem := b.PEM()
		if len(pem) > maxTrustBundleBytes {
			w.refuse("The bundle of %s has %d bytes: a ClusterTrustBundle holds %d.", td, len(pem), maxTrustBundleBytes)
			continue
		}
		w.held[b] = true
		w.object("", TrustBundleName(t.SignerDomain, td), t.Labels, nil, map[string]any{"spec": map[string]any{
			"signerName": t.SignerDomain + "/" + td, "trustBundle": string(pem),
		}})
	}
}

// TrustBundleName returns the name of the ClusterTrustBundle of a trust domain.
func TrustBundleName(signerDomain, trustDomain string) string {
	return signerDomain + ":" + trustDomain + ":bundle"
}

// notSignerDomain returns why a name cannot be the first part of the name of a signer, or "".
func notSignerDomain(name string) string {
	labels := strings.Split(name, ".")
	if len(labels) < 2 { //nolint:mnd // Kubernetes requires a dot
		return "Kubernetes requires two labels at least, as in entente.io"
	}
	if len(name) > validation.DNS1123SubdomainMaxLength {
		return fmt.Sprintf("it has more than %d characters", validation.DNS1123SubdomainMaxLength)
	}
	for _, label := range labels {
		if problems := validation.IsDNS1123Label(label); len(problems) > 0 {
			return problems[0]
		}
	}
	return ""
}

// notSignerPath returns why a name cannot be the second part of the name of a signer, or "".
func notSignerPath(name string) string {
	for label := range strings.SplitSeq(name, ".") {
		if problems := validation.IsDNS1123Subdomain(label); len(problems) > 0 {
			return problems[0]
		}
	}
	return ""
}

// federatedDomains adds a ClusterFederatedTrustDomain for each trust domain.
func (w *writer) federatedDomains(t v1alpha1.ClusterFederatedTrustDomainTarget) {
	w.kind = FederatedDomain
	for _, b := range w.bundles {
		td := b.TrustDomain().Name()
		if problems := validation.IsDNS1123Subdomain(td); len(problems) > 0 {
			w.refuse("The trust domain %s cannot be the name of a ClusterFederatedTrustDomain: %s.", td, problems[0])
			continue
		}
		endpoint := filled(t.BundleEndpointURL, b)
		if u, err := url.Parse(endpoint); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			w.refuse("%q is not the URL of a bundle endpoint: write https://HOST:PORT/PATH.", endpoint)
			return
		}
		profile := map[string]any{"type": t.BundleEndpointProfile.Type}
		if id := filled(t.BundleEndpointProfile.EndpointSPIFFEID, b); id != "" {
			if _, err := bundle.ParseID(id); err != nil {
				w.refuse("The endpointSPIFFEID of %s: %v.", td, err)
				continue
			}
			profile["endpointSPIFFEID"] = id
		}
		spec := map[string]any{
			"trustDomain": td, "bundleEndpointURL": endpoint, "bundleEndpointProfile": profile,
			"trustDomainBundle": string(b.Document()),
		}
		if t.ClassName != "" {
			spec["className"] = t.ClassName
		}
		w.held[b] = true
		w.object("", td, t.Labels, nil, map[string]any{"spec": spec})
	}
}
