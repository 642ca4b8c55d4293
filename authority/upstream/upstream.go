package upstream

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Upstream signs the CA certificates of this member. It is called from one goroutine, which blocks nothing else, and
// never inside a transaction. After an error nothing has changed, and the call is repeated with backoff.
type Upstream interface {
	// SignCA signs a CA certificate for the key of the request. The result belongs to the caller, which verifies it
	// with [Check].
	SignCA(ctx context.Context, r Request) (*Signed, error)
	// Prune is called when authorities of this member have ended. The upstream can delete what it keeps on this member
	// for anchors that are not in use.
	Prune(inUse func(anchor *x509.Certificate) bool) error
}

// AnchorSource is implemented by an [Upstream] that lists the anchors of a domain. They are published when they are
// listed, before anything is signed below them.
type AnchorSource interface {
	// Anchors returns the anchors of a domain as last read, and a channel that is closed when the anchors of any domain
	// change. It returns no anchors before they were read. It does not block.
	Anchors(td spiffeid.TrustDomain) ([]*x509.Certificate, <-chan struct{})
}

// RootMaker is implemented by an [Upstream] that makes its anchors itself, on this member.
type RootMaker interface {
	// MakeRoot makes an anchor that the next request can reserve. Of a request it reads the trust domain, the time and
	// the name constraints.
	MakeRoot(ctx context.Context, r Request) (*x509.Certificate, error)
	// Roots returns the anchors of a domain whose keys this member has.
	Roots(ctx context.Context, td spiffeid.TrustDomain) ([]*x509.Certificate, error)
}

// Request is a request for a CA certificate.
type Request struct {
	TrustDomain spiffeid.TrustDomain
	// CSR contains the key, and a signature that proves its possession.
	CSR *x509.CertificateRequest
	Now time.Time
	TTL time.Duration
	// Refused reports whether signing below an anchor is refused: it was revoked, or waits for approval.
	Refused func(anchor *x509.Certificate) bool
	// NewAnchor requests a certificate below a new anchor, if the upstream makes its anchors itself.
	NewAnchor bool
	// NameConstraints requests that an anchor which the upstream makes for this certificate permits names of the trust
	// domain alone.
	NameConstraints bool
	// InUse reports whether an authority of this member is below an anchor, and Reserved whether an anchor waits until
	// the present one signs no more. They concern an upstream that makes its anchors itself. A nil function returns
	// false.
	InUse, Reserved func(anchor *x509.Certificate) bool
	// Failed is called after each failed attempt while SignCA retries, so that a cause is known before the last attempt
	// fails. It can be nil.
	Failed func(error)
}

// Signed is the result of an upstream.
type Signed struct {
	// Chain begins with the CA certificate and ends below the anchor.
	Chain []*x509.Certificate
	// Anchors belong into the bundle. The chain leads to the first one. Of an [AnchorSource] the others are ignored.
	Anchors []*x509.Certificate
}

// Revoker is implemented by an [Upstream] that has anchors of its own and can put a certificate that it signed on its
// revocation list. Revoking a certificate twice is no error.
type Revoker interface {
	Revoke(ctx context.Context, td spiffeid.TrustDomain, certificate *x509.Certificate) error
}
