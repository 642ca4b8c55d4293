// Package demo is `entente demo`: two regions of three members each on this machine, federated, with a service in both
// and callers that cross from one to the other.
//
// Nothing in it is staged. Each member is a child process of the same executable, started as `server --config FILE` with
// a folder, ports and an admin socket of its own, and the demo talks to it through that socket, as the commands do. The
// workloads are real too: HTTPS servers and clients that hold X509-SVIDs issued by their own cluster, verify each other
// with go-spiffe by the bundles that their own cluster hands out, and renew both.
//
// The story stands in story.go, one function a step; each proves what it says or fails. region.go and member.go are the
// clusters and their processes, workload.go, service.go and traffic.go what runs on them.
//
// A child ends when its standard input does ([EndWithParent]), so that none outlives the demo, however that ends. The
// demo's folder is locked while it runs; what a killed demo left behind is removed by the next one.
package demo
