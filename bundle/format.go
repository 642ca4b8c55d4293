package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle/internal/jwk"
	"github.com/ententehq/entente/bundle/internal/refusal"
)

// Format is a form in which other programs read bundles.
type Format string

// The formats. [FormatMap] holds the bundles of all domains, the others that of one.
const (
	// FormatSPIFFE is the SPIFFE bundle document.
	FormatSPIFFE Format = "spiffe"
	// FormatPEM is a file of the X.509 authorities.
	FormatPEM Format = "pem"
	// FormatJWKS is a JWK Set (RFC 7517) of the JWT authorities, as verifiers of JSON Web Tokens read it.
	FormatJWKS Format = "jwks"
	// FormatMap is the SPIFFE bundle map.
	FormatMap Format = "map"
)

// Formats are all formats.
var Formats = []Format{FormatSPIFFE, FormatPEM, FormatJWKS, FormatMap}

// ErrFormat refuses the name of a format.
var ErrFormat = errors.New("not a format of bundles")

// ParseFormat parses the name of a format.
func ParseFormat(name string) (Format, error) {
	if f := Format(name); slices.Contains(Formats, f) {
		return f, nil
	}
	names := make([]string, len(Formats))
	for i, f := range Formats {
		names[i] = string(f)
	}
	return "", fmt.Errorf("%s: %w; there are %s", refusal.Clip(name), ErrFormat, strings.Join(names, ", "))
}

// ContentType returns the media type of a format.
func (f Format) ContentType() string {
	switch f {
	case FormatPEM:
		return "application/x-pem-file"
	case FormatJWKS:
		return "application/jwk-set+json" // RFC 7517, section 8.5.2
	default:
		return "application/json"
	}
}

// FileName returns the name of the file with the bundle of a trust domain, or of all domains for [FormatMap]. No two
// formats and domains have one name.
func (f Format) FileName(td spiffeid.TrustDomain) string {
	switch f {
	case FormatPEM:
		return td.Name() + ".pem"
	case FormatJWKS:
		return td.Name() + ".jwks.json"
	case FormatMap:
		return "bundle-map.json"
	default:
		return td.Name() + ".spiffe.json"
	}
}

// Has reports whether a bundle has anything to write in a format. A document without keys says that nothing of its
// domain is trusted; a file without certificates is one that many programs do not read.
func (f Format) Has(b *Bundle) bool {
	switch f {
	case FormatPEM:
		return len(b.content.X509Authorities) > 0
	case FormatJWKS:
		return len(b.content.JWTAuthorities) > 0
	default:
		return true
	}
}

// Marshal returns one bundle in a format. In [FormatMap] it is a map of this domain alone.
func (f Format) Marshal(b *Bundle) ([]byte, error) {
	switch f {
	case FormatSPIFFE:
		return b.Marshal(), nil
	case FormatPEM:
		return b.PEM(), nil
	case FormatJWKS:
		return b.JWKS()
	case FormatMap:
		return MarshalMap([]*Bundle{b})
	default:
		return nil, fmt.Errorf("%s: %w", refusal.Clip(string(f)), ErrFormat)
	}
}

// jwksKey is a key in the form for verifiers that know nothing of SPIFFE.
type jwksKey struct {
	jwk.Key
	Algorithm string `json:"alg,omitempty"`
}

// JWKS returns the JWT authorities as a JWK Set for verifiers that know nothing of SPIFFE: with the use "sig", and the
// algorithm where the key decides it.
func (b *Bundle) JWKS() ([]byte, error) {
	set := struct {
		Keys []jwksKey `json:"keys"`
	}{Keys: []jwksKey{}}
	for _, kid := range slices.Sorted(maps.Keys(b.content.JWTAuthorities)) {
		key, err := jwk.New(b.content.JWTAuthorities[kid])
		if err != nil {
			return nil, fmt.Errorf("JWK Set of %s: %w", b.td, err)
		}
		key.Use, key.KeyID = "sig", kid
		set.Keys = append(set.Keys, jwksKey{key, jwk.Algorithm(b.content.JWTAuthorities[kid])})
	}
	body, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("JWK Set of %s: %w", b.td, err)
	}
	return body, nil
}
