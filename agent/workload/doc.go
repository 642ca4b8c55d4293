// Package workload finds out what a process is that has connected to a socket of the agent.
//
// [Unix] has what the kernel knows, [Kubernetes] what the kubelet knows of the pod, and [Systemd] the unit.
//
// [Credentials] take the process from the kernel when the connection is made, as a [Process]. An [Attestor] returns its
// selectors, of one type each, with the names that SPIRE gives them. [Attest] asks all of them and verifies at the end
// that the process is still the same one: by a descriptor of the process where the kernel has them (SO_PEERPIDFD), and
// by its start time, read before and after. A process that the kernel gives no ID for, because it is in a PID namespace
// that the agent does not see, is refused.
package workload
