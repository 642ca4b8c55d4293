// Package publish keeps the objects of publications as they should be: the trust bundles of Entente in the ConfigMaps,
// Secrets, ClusterTrustBundles and ClusterFederatedTrustDomains of one Kubernetes cluster.
//
// A [Follower] receives the bundles from Entente and keeps them through outages: an outage ends no trust. A reconciler
// for each kind of publication, which [Setup] starts, makes the plan of a publication by the package plan below,
// compares it with what exists, and writes the difference by server-side apply. It runs when a bundle, a publication,
// a namespace or a written object changes. What has not changed is not written, its status included.
//
// An object that the controller did not make is never changed. An object that it made is taken back from whoever
// changes it. Objects end with their publication by their owner references; the controller removes them at once
// besides.
package publish
