package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BundlePublication writes the trust bundles of Entente into a ConfigMap or a Secret of its namespace, and keeps them
// up to date. A bundle whose trust has ended is removed at once. The object that is written ends with the
// publication.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=bp,categories=entente
// +kubebuilder:printcolumn:name="Published",type=string,JSONPath=`.status.conditions[?(@.type=="Published")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Published")].reason`
// +kubebuilder:printcolumn:name="Bundles",type=integer,JSONPath=`.status.bundleCount`
// +kubebuilder:printcolumn:name="Changed",type=date,JSONPath=`.status.lastChangeTime`
type BundlePublication struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   BundlePublicationSpec `json:"spec"`
	Status PublicationStatus     `json:"status,omitempty"`
}

// BundlePublicationList is a list of publications.
//
// +kubebuilder:object:root=true
type BundlePublicationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []BundlePublication `json:"items"`
}

// BundlePublicationSpec names the bundles and the object that they are written into.
//
// +kubebuilder:validation:ExactlyOneOf=configMap;secret
type BundlePublicationSpec struct {
	// TrustDomains are the trust domains whose bundles are written. If empty, all that the controller may read.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=255
	TrustDomains []string `json:"trustDomains,omitempty"`
	// ConfigMap is the ConfigMap to write.
	//
	// +optional
	ConfigMap *DataTarget `json:"configMap,omitempty"`
	// Secret is the Secret to write, for readers that accept no ConfigMap. The controller must be allowed to write
	// Secrets in the namespace.
	//
	// +optional
	Secret *DataTarget `json:"secret,omitempty"`
}

// DataTarget is a ConfigMap or a Secret.
type DataTarget struct {
	// Name is the name of the object. If empty, that of the publication.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
	// Labels are labels of the object, by which its readers select it.
	//
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// Annotations are annotations of the object.
	//
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
	// Data are the entries of the object.
	//
	// +listType=map
	// +listMapKey=key
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Data []DataEntry `json:"data"`
}

// TrustDomainPlaceholder stands for the name of a trust domain in a key or a URL.
const TrustDomainPlaceholder = "{trustDomain}"

// DataEntry is what stands under a key, or under a key for each trust domain.
type DataEntry struct {
	// Key is the key in the object. {trustDomain} in it stands for the name of the trust domain. It is required where
	// a form holds one trust domain and the publication has several, since trust domains are never merged.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key"`
	// Format is the form of the bundle.
	Format Format `json:"format"`
}

// Format is a form of a bundle, by the names that 'entente sync' has: pem has the X.509 authorities of one trust
// domain, spiffe is the SPIFFE bundle document of one, jwks is a JWK Set of the JWT authorities of one, and map is the
// SPIFFE bundle map of all.
//
// +kubebuilder:validation:Enum=pem;spiffe;jwks;map
type Format string

// The types of conditions of a publication.
const (
	// ConditionPublished is true if every object holds the present bundles.
	ConditionPublished = "Published"
	// ConditionCurrent is true while the controller receives the changes of bundles from Entente.
	ConditionCurrent = "Current"
)

// The reasons of conditions.
const (
	ReasonPublished    = "Published"
	ReasonRefused      = "Refused"       // the specification, or a name, cannot be held by Kubernetes
	ReasonForeign      = "ForeignObject" // an object exists that another owner has
	ReasonForbidden    = "Forbidden"     // the controller lacks a right in this cluster
	ReasonUnsupported  = "Unsupported"   // the API server does not serve the kind
	ReasonWriteFailed  = "WriteFailed"   // any other error of a write
	ReasonConnected    = "Connected"
	ReasonDisconnected = "Disconnected"
)

// PublicationStatus is what was published, and what was not.
type PublicationStatus struct {
	// ObservedGeneration is the generation of the specification that the status is about.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions are Published and Current.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Bundles are the bundles that the objects held when all of them were written last, at most 500, by trust domain.
	//
	// +optional
	// +listType=map
	// +listMapKey=trustDomain
	Bundles []PublishedBundle `json:"bundles,omitempty"`
	// BundleCount is the number of bundles.
	//
	// +optional
	BundleCount int32 `json:"bundleCount"`
	// ObjectCount is the number of objects that hold them.
	//
	// +optional
	ObjectCount int32 `json:"objectCount"`
	// LastChangeTime is when an object was written or removed last.
	//
	// +optional
	LastChangeTime *metav1.Time `json:"lastChangeTime,omitempty"`
	// LastError is the last error, which may be over: see the condition Published.
	//
	// +optional
	LastError string `json:"lastError,omitempty"`
	// LastErrorTime is when the last error was new.
	//
	// +optional
	LastErrorTime *metav1.Time `json:"lastErrorTime,omitempty"`
}

// PublishedBundle is a bundle that was published.
type PublishedBundle struct {
	// TrustDomain is the name of the trust domain.
	TrustDomain string `json:"trustDomain"`
	// Digest is the hexadecimal SHA-256 of the set of usable keys, as 'entente bundle show' prints it.
	Digest string `json:"digest"`
	// Sequence is the sequence of the bundle, if it has one. It has up to 64 bits, which numbers of JSON have not.
	//
	// +optional
	Sequence string `json:"sequence,omitempty"`
	// Since is when this content was published first, which is its age.
	Since metav1.Time `json:"since"`
}
