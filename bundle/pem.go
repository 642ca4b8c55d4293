package bundle

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle/internal/jwk"
	"github.com/ententehq/entente/bundle/internal/refusal"
)

// ErrPEM refuses a file of certificates.
var ErrPEM error = refusal.New("bad_pem", "the file is not one of certificates in PEM")

// ParseFile reads a bundle that a person provides: a document as [Parse] reads it, or the X.509 authorities in PEM, as
// `spire-server bundle show` prints them. The second has no JWT authorities, sequence and refresh hint. A certificate
// that cannot be used is left out, as in a document.
func ParseFile(td spiffeid.TrustDomain, content []byte) (*Bundle, []Ignored, error) {
	if !bytes.Contains(content, []byte("-----BEGIN ")) || bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) {
		return Parse(td, content)
	}
	b, ignored, err := parsePEM(td, content)
	if err != nil {
		return nil, nil, fmt.Errorf("bundle of %s: %w", td, err)
	}
	return b, ignored, nil
}

func parsePEM(td spiffeid.TrustDomain, content []byte) (*Bundle, []Ignored, error) {
	if len(content) > MaxDocumentBytes {
		return nil, nil, fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrTooLarge, len(content),
			MaxDocumentBytes)
	}
	r := reader{x509: make(map[string]bool), elements: jwk.MaxElements}
	n := 0
	for ; ; n++ {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, nil, fmt.Errorf("%w: block %d is %s", ErrPEM, n+1, refusal.Clip(block.Type))
		}
		if n == MaxKeys {
			return nil, nil, fmt.Errorf("%w: more than %d", ErrTooManyKeys, MaxKeys)
		}
		err := r.authority(n, base64.StdEncoding.EncodeToString(block.Bytes), nil)
		if errors.Is(err, jwk.ErrKey) {
			r.leaveOut(IgnoredUnusable, n, "%s", oneLine(err.Error()))
		} else if err != nil {
			return nil, nil, err
		}
	}
	if n == 0 || bytes.Contains(content, []byte("-----BEGIN ")) {
		return nil, nil, fmt.Errorf("%w: block %d does not decode", ErrPEM, n+1)
	}
	return r.bundle(td)
}
