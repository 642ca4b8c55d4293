package xdsbootstrap

import (
	"crypto/ed25519"
	"crypto/x509"
	"slices"

	"github.com/ententehq/entente/bundle"
)

// maxSequence is the largest sequence that every JSON parser reads exactly (RFC 7493, 2.2).
const maxSequence = 1 << 53

// BundleMap returns the SPIFFE bundle map of bundle documents by trust domain, as gRPC reads it. It parses each as a
// cluster does.
//
// gRPC for Java loads a map as a whole or not at all, and refuses one with a key that has a kid, another use than
// x509-svid, or another type than RSA and EC. So the map has neither JWT authorities nor Ed25519 keys: one domain that
// has them would take the others with it. A sequence that a parser may round is left out too.
func BundleMap(documents map[string][]byte) ([]byte, error) {
	var all []*bundle.Bundle
	for name, document := range documents {
		td, err := bundle.ParseTrustDomain(name)
		if err != nil {
			return nil, err
		}
		b, _, err := bundle.Parse(td, document)
		if err == nil {
			b, err = b.With(readByGRPC)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return bundle.MarshalMap(all)
}

// readByGRPC leaves out of a bundle what not every gRPC reads.
func readByGRPC(c *bundle.Content) {
	c.JWTAuthorities = nil
	c.X509Authorities = slices.DeleteFunc(slices.Clone(c.X509Authorities), func(cert *x509.Certificate) bool {
		_, refused := cert.PublicKey.(ed25519.PublicKey)
		return refused
	})
	if c.Sequence != nil && *c.Sequence > maxSequence {
		c.Sequence = nil
	}
}
