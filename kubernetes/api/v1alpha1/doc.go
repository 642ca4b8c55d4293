// Package v1alpha1 holds the custom resources of the Kubernetes controller, group entente.io.
//
// A [BundlePublication] writes trust bundles into a ConfigMap or a Secret of its own namespace; who may create one
// there may write such an object too. A [ClusterBundlePublication] writes them where a cluster's administrator
// decides.
//
// The manifests in deploy/crds are generated from the comments and markers of this package: `make generate`.
//
// +kubebuilder:object:generate=true
// +groupName=entente.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// PublicationKind returns the kind, which an object that was read does not have.
func (*BundlePublication) PublicationKind() string { return "BundlePublication" }

// PublicationKind returns the kind, which an object that was read does not have.
func (*ClusterBundlePublication) PublicationKind() string { return "ClusterBundlePublication" }

// PublicationStatus returns the status, to be read or changed.
func (p *BundlePublication) PublicationStatus() *PublicationStatus { return &p.Status }

// PublicationStatus returns the status, to be read or changed.
func (p *ClusterBundlePublication) PublicationStatus() *PublicationStatus { return &p.Status }

// GroupVersion is the group and version of the resources.
var GroupVersion = schema.GroupVersion{Group: "entente.io", Version: "v1alpha1"}

// AddToScheme adds the resources to a scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &BundlePublication{}, &BundlePublicationList{}, &ClusterBundlePublication{},
		&ClusterBundlePublicationList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
