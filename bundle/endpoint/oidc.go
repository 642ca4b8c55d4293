package endpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/jwk"
	"github.com/ententehq/entente/bundle/internal/refusal"
)

// Issuer is the URL under which verifiers of OpenID Connect (cloud providers, Vault's JWT auth) accept a hosted
// domain's JWT-SVIDs. It is the "iss" of a token and is compared as text, so each issuer has one spelling: https, a
// host name in lower case, perhaps a port, and a path of whole segments without a slash at its end.
type Issuer struct {
	text, host, path string
}

// maxIssuerBytes keeps a token with its issuer below what HTTP servers take as a header.
const maxIssuerBytes = 255

// ErrIssuer is the sentinel of the refusals of [ParseIssuer].
var ErrIssuer = errors.New("not an issuer")

// The paths below an issuer: the first by OpenID Connect Discovery 1.0, section 4, which names the second.
const (
	discoveryPath = "/.well-known/openid-configuration"
	jwksPath      = "/.well-known/jwks.json"
)

// ParseIssuer parses the URL of an issuer. The error is a sentence for an operator.
func ParseIssuer(text string) (Issuer, error) {
	refuse := func(why string) (Issuer, error) {
		return Issuer{}, fmt.Errorf("issuer %s: %w: %s", refusal.Clip(text), ErrIssuer, why)
	}
	rest, ok := strings.CutPrefix(text, "https://")
	switch {
	case !ok:
		return refuse(`it does not begin with "https://"`)
	case len(text) > maxIssuerBytes:
		return refuse(fmt.Sprintf("it has %d bytes; at most %d are allowed", len(text), maxIssuerBytes))
	}
	authority, path, hasPath := strings.Cut(rest, "/")
	host, port, hasPort := strings.Cut(authority, ":")
	if !IsHostName(host) {
		return refuse("its host is no host name in lower case")
	}
	if n, err := strconv.ParseUint(port, 10, 16); hasPort &&
		(err != nil || n == 0 || n == 443 || port != strconv.FormatUint(n, 10)) {
		return refuse("its port is none from 1 to 65535, or is the default 443")
	}
	i := Issuer{text: text, host: host}
	if hasPath {
		if err := checkIssuerPath(path); err != nil {
			return refuse(err.Error())
		}
		i.path = "/" + path
	}
	return i, nil
}

// checkIssuerPath checks a path without its first slash.
func checkIssuerPath(path string) error {
	for segment := range strings.SplitSeq(path, "/") {
		switch segment {
		case "":
			return errors.New("its path ends with a slash, or has an empty segment")
		case ".", "..":
			return errors.New("its path has a segment of dots")
		case ".well-known":
			return errors.New("its path has the segment .well-known, which stands below an issuer")
		}
		for i := range len(segment) {
			if c := segment[i]; !isLabelByte(c) && (c < 'A' || c > 'Z') && !strings.ContainsRune("._~-", rune(c)) {
				return errors.New("its path has other characters than letters, digits, dot, dash, underscore and tilde")
			}
		}
	}
	return nil
}

// String returns the issuer as it is in tokens.
func (i Issuer) String() string { return i.text }

// SamePlace reports whether two issuers are served at the same place: a server does not see the port of a request.
func (i Issuer) SamePlace(other Issuer) bool { return i.host == other.host && i.path == other.path }

// IsZero reports whether there is no issuer.
func (i Issuer) IsZero() bool { return i == Issuer{} }

// discovery has the members that Discovery 1.0, section 3, requires of an issuer of tokens without endpoints to get
// them.
type discovery struct {
	Issuer        string   `json:"issuer"`
	JWKS          string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
}

// documents returns the discovery document and the key set of an issuer whose tokens a bundle verifies.
func (i Issuer) documents(b *bundle.Bundle) (config, keys []byte, err error) {
	used := map[string]bool{}
	for _, key := range b.JWTAuthorities() {
		if algorithm := jwk.Algorithm(key); algorithm != "" {
			used[algorithm] = true
		}
	}
	config, err = json.Marshal(discovery{
		Issuer: i.text, JWKS: i.text + jwksPath, ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"},
		Algorithms: append([]string{}, slices.Sorted(maps.Keys(used))...),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("write the discovery document of %s: %w", i, err)
	}
	keys, err = b.JWKS()
	return config, keys, err
}

// maxOIDCAge bounds the time for which a verifier caches the keys, and so the time for which a revoked key is accepted.
const maxOIDCAge = 5 * time.Minute

// oidcCaching allows verifiers to cache the keys for as long as readers of the bundle do: a key is published for three
// refresh hints before it signs.
func oidcCaching(b *bundle.Bundle) string {
	age := maxOIDCAge
	if hint, ok := b.RefreshHint(); ok && hint < age {
		age = hint
	}
	return fmt.Sprintf("public, max-age=%d", int(age.Seconds()))
}
