// Package kubernetes is the controller of one Kubernetes cluster. [Run] runs it.
//
// The controller is a client of Entente as any other, by package client, with an identity and a role of its own: no
// kubeconfig of a cluster lies on a server of Entente. Several replicas can run; one of them, which holds a Lease,
// writes.
//
// The folders below are the rooms: api/v1alpha1 has the custom resources, publish brings trust bundles into the
// cluster, and kubetest gives tests a real API server.
package kubernetes
