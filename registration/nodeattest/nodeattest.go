// Package nodeattest verifies what agents show of their nodes beside one-time tokens: a certificate of a named
// authority ([X509PoP]), and the projected token of a Kubernetes service account ([Kubernetes]).
//
// Such evidence can be shown again. Who shows it becomes the agent of its node, in the place of the agent that showed
// it before; nobody becomes the agent of another node, nor one that another kind of evidence has admitted, since names
// begin with the kind. Selectors are named as SPIRE's are.
package nodeattest

import "fmt"

// Node is what evidence has shown.
type Node struct {
	// Name is the name of the agent. It begins with the kind of the evidence.
	Name string
	// Attestation is the kind, as it is in selectors.
	Attestation string
	// Selectors are those of the kind, with their type.
	Selectors []string
}

// Refusal is evidence that does not count. Its text says why and what to do.
type Refusal struct{ reason string }

// Error implements error.
func (r *Refusal) Error() string { return r.reason }

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }
