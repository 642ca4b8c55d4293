// Package demo is `entente demo`: two regions of three members each on this machine, federated, with a service in both
// and callers that cross from one to the other.
//
// Nothing is simulated. Each member is a child process of the same executable, started as `server --config FILE` with a
// folder, ports and an admin socket of its own, which the demo uses as the commands do. An agent of
// each region is another one, by 'agent --token-file FILE'. The workloads are real too: HTTPS servers and clients whose
// X509-SVIDs and bundles come from the agent of their region, by go-spiffe's source of the Workload API.
//
// The steps are in story.go, one function each; a step fails if it cannot prove what it prints. The clusters and their
// processes are in region.go, member.go, agent.go and child.go, the workloads in workload.go, service.go and
// traffic.go.
//
// A child ends when its standard input does ([EndWithParent]), so no child outlives the demo, however that ends. The
// demo's folder is locked while it runs; the next demo removes the folder of one that was killed.
package demo
