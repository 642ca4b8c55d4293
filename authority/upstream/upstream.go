package upstream

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Upstream signs the CA certificates of this member. The [authority.Manager] calls it from one goroutine,
// which waits for nothing else, and never while it holds a transaction open. An error leaves everything as it is; the call is repeated with backoff.
type Upstream interface {
	// SignCA signs a signing certificate for the key of the request. What is returned belongs to the caller and is
	// checked by it: key, name, usages, and that it chains to the first anchor.
	SignCA(ctx context.Context, r Request) (*Signed, error)
	// Prune is called when authorities of this member have ended. What the upstream keeps on this member for anchors
	// that are not in use is of no more use.
	Prune(inUse func(anchor *x509.Certificate) bool) error
}

// AnchorSource is implemented by an [Upstream] that knows the anchors of a domain apart from what it signs. They are published
// when they are seen, before anything is signed below them.
type AnchorSource interface {
	// Anchors are those of a domain as last seen, and a channel that is closed when the anchors of any domain change. None:
	// it has not seen them yet. It does not block.
	Anchors(td spiffeid.TrustDomain) ([]*x509.Certificate, <-chan struct{})
}

// CARequest asks for a signing certificate.
type Request struct {
	TrustDomain spiffeid.TrustDomain
	// CSR holds the key, and a signature that proves its possession.
	CSR *x509.CertificateRequest
	Now time.Time
	TTL time.Duration
	// Refused says below which anchors nothing must be signed: what was revoked, and what waits for approval.
	Refused func(anchor *x509.Certificate) bool
	// NewAnchor asks for a certificate below an anchor that no earlier one is below, where the upstream makes its
	// anchors itself.
	NewAnchor bool
	// Failed is told of an attempt that failed while SignCA goes on trying; nil: nobody wants to know. What needs a person is
	// known then, and not only when the last attempt has failed.
	Failed func(error)
}

// Signed is the answer of an upstream.
type Signed struct {
	// Chain begins with the signing certificate and ends below the anchor.
	Chain []*x509.Certificate
	// Anchors are to be in the bundle. The chain leads to the first. Of an [AnchorSource] the others do not count here.
	Anchors []*x509.Certificate
}

// Revoker is an [Upstream] whose anchors are its own and not the member's, and which can put a certificate that it signed
// on its revocation list. To revoke one twice is no error.
type Revoker interface {
	Revoke(ctx context.Context, td spiffeid.TrustDomain, certificate *x509.Certificate) error
}
