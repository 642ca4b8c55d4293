// Package plan decides which objects of Kubernetes hold which bundles, and which of the objects that exist are to be
// written or removed. It is pure: it calls neither Kubernetes nor Entente.
//
// [Namespaced] and [Cluster] make a [Plan] of a publication. A plan holds what Kubernetes can hold; what it cannot is
// refused in words, trust domain by trust domain, and does not hold up the rest. Trust domains are never merged: a key,
// and a signer, has the authorities of one.
//
// [UpToDate] and [Stale] compare a plan with what exists. An object belongs to a publication by its controller
// reference alone: see [Owns].
package plan
