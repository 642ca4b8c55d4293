// Package agent is the process on a node that gives workloads their identities, by the SPIFFE Workload API and SDS, and
// their routes by xDS.
//
// [Run] attests the agent (package attest), follows its entries, the bundles and the distrusted authorities of the
// cluster, has the SVIDs of its entries signed in advance (package cache), and serves a Unix socket (packages
// workloadapi, sds and xds) whose callers it attests (package workload). It knows the cluster by package client alone.
//
// While no member can be reached, workloads keep what they have, and new ones receive what the agent has. An agent that
// starts then serves nothing until it is attested again, unless [Config.CacheKeyFile] is set: it serves what it kept,
// encrypted, in its data folder.
package agent
