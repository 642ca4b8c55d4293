package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ClusterBundlePublication writes the trust bundles of Entente into objects of the whole cluster, and keeps them up
// to date. A bundle whose trust has ended is removed at once. The objects that are written end with the publication.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=cbp,categories=entente
// +kubebuilder:printcolumn:name="Published",type=string,JSONPath=`.status.conditions[?(@.type=="Published")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Published")].reason`
// +kubebuilder:printcolumn:name="Bundles",type=integer,JSONPath=`.status.bundleCount`
// +kubebuilder:printcolumn:name="Objects",type=integer,JSONPath=`.status.objectCount`
// +kubebuilder:printcolumn:name="Changed",type=date,JSONPath=`.status.lastChangeTime`
type ClusterBundlePublication struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ClusterBundlePublicationSpec `json:"spec"`
	Status PublicationStatus            `json:"status,omitempty"`
}

// ClusterBundlePublicationList is a list of publications.
//
// +kubebuilder:object:root=true
type ClusterBundlePublicationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []ClusterBundlePublication `json:"items"`
}

// ClusterBundlePublicationSpec names the bundles and the objects that they are written into.
//
// +kubebuilder:validation:ExactlyOneOf=clusterTrustBundle;clusterFederatedTrustDomain;configMap;secret
type ClusterBundlePublicationSpec struct {
	// TrustDomains are the trust domains whose bundles are written. If empty, all that the controller may read.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=255
	TrustDomains []string `json:"trustDomains,omitempty"`
	// ClusterTrustBundle writes a ClusterTrustBundle for each trust domain.
	//
	// +optional
	ClusterTrustBundle *ClusterTrustBundleTarget `json:"clusterTrustBundle,omitempty"`
	// ClusterFederatedTrustDomain writes a ClusterFederatedTrustDomain of spire-controller-manager for each trust
	// domain.
	//
	// +optional
	ClusterFederatedTrustDomain *ClusterFederatedTrustDomainTarget `json:"clusterFederatedTrustDomain,omitempty"`
	// ConfigMap writes a ConfigMap into every selected namespace.
	//
	// +optional
	ConfigMap *SpreadTarget `json:"configMap,omitempty"`
	// Secret writes a Secret into every selected namespace, for readers that accept no ConfigMap. The controller must
	// be allowed to write Secrets there.
	//
	// +optional
	Secret *SpreadTarget `json:"secret,omitempty"`
}

// SpreadTarget is a ConfigMap or a Secret in every selected namespace.
type SpreadTarget struct {
	DataTarget `json:",inline"`
	// NamespaceSelector selects namespaces by their labels. An empty selector selects all. Those of Kubernetes itself,
	// kube-*, are left out.
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
}

// ClusterTrustBundleTarget is a ClusterTrustBundle for each trust domain. Its signer is <signerDomain>/<trust
// domain>, and its name <signerDomain>:<trust domain>:bundle. A trust domain has a signer of its own, since a
// projection by the name of a signer merges all bundles of that signer.
type ClusterTrustBundleTarget struct {
	// SignerDomain is the first part of the name of the signer, a domain of at least two labels.
	//
	// +optional
	// +kubebuilder:default=entente.io
	// +kubebuilder:validation:MaxLength=253
	SignerDomain string `json:"signerDomain,omitempty"`
	// Labels are labels of the objects, by which projections select them.
	//
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
}

// ClusterFederatedTrustDomainTarget is a ClusterFederatedTrustDomain for each trust domain, with its present bundle.
// SPIRE follows the bundle at the endpoint from then on.
type ClusterFederatedTrustDomainTarget struct {
	// ClassName is the class of the spire-controller-manager that acts on the objects.
	//
	// +optional
	ClassName string `json:"className,omitempty"`
	// Labels are labels of the objects.
	//
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// BundleEndpointURL is where SPIRE fetches the bundle. {trustDomain} in it stands for the name of the trust
	// domain, as in https://eu.example.org:7443/bundles/{trustDomain}.
	//
	// +kubebuilder:validation:Pattern=`^https://[^@]+$`
	// +kubebuilder:validation:MaxLength=2048
	BundleEndpointURL string `json:"bundleEndpointURL"`
	// BundleEndpointProfile is the profile of the endpoint.
	BundleEndpointProfile BundleEndpointProfile `json:"bundleEndpointProfile"`
}

// BundleEndpointProfile is how the bundle endpoint authenticates.
//
// +kubebuilder:validation:XValidation:rule="(self.type == 'https_spiffe') == has(self.endpointSPIFFEID)"
type BundleEndpointProfile struct {
	// Type is https_spiffe or https_web.
	//
	// +kubebuilder:validation:Enum=https_spiffe;https_web
	Type string `json:"type"`
	// EndpointSPIFFEID is the SPIFFE ID that the endpoint presents. {trustDomain} in it stands for the name of the
	// trust domain.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	EndpointSPIFFEID string `json:"endpointSPIFFEID,omitempty"`
}
