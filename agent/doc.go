// Package agent is the process on a node that gives workloads their identities, by the SPIFFE Workload API and by SDS.
//
// [Run] attests the agent (package attest), follows its entries, the bundles and the distrusted authorities of the
// cluster, has the SVIDs of its entries signed in advance (package cache), and serves a Unix socket (packages
// workloadapi and sds) whose callers it attests (package workload). It knows the cluster by package client alone.
//
// While no member can be reached, workloads keep what they have, and new ones receive what the agent has. SVIDs are in
// memory: an agent that is started while no member can be reached serves nothing before it was attested again.
package agent
