package bundle

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ententehq/entente/bundle/internal/jwk"
	"github.com/ententehq/entente/bundle/internal/refusal"
	"github.com/ententehq/entente/bundle/internal/strictjson"
)

// document is the SPIFFE bundle document in its written form.
type document struct {
	Sequence    *uint64   `json:"spiffe_sequence,omitempty"`
	RefreshHint *int64    `json:"spiffe_refresh_hint,omitempty"`
	Keys        []jwk.Key `json:"keys"`
}

// marshalDocument writes c, whose X.509 authorities are sorted: first those, then the JWT authorities by kid, then the
// WIT authorities. It encodes one key at a time.
func marshalDocument(c Content) ([]byte, error) {
	d := document{Sequence: c.Sequence, Keys: []jwk.Key{}}
	if c.RefreshHint != nil {
		d.RefreshHint = new(int64(*c.RefreshHint / time.Second))
	}
	const about = 256 // bytes of a key without its certificate
	size := about * (1 + len(c.X509Authorities) + len(c.JWTAuthorities) + len(c.WITAuthorities))
	for _, cert := range c.X509Authorities {
		size += base64.StdEncoding.EncodedLen(len(cert.Raw))
	}
	var buf bytes.Buffer
	buf.Grow(size)
	if err := strictjson.WriteJSON(&buf, d); err != nil {
		return nil, err
	}
	const end = "]}"
	buf.Truncate(buf.Len() - len(end))
	for i, cert := range c.X509Authorities {
		key, err := jwk.New(cert.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("X.509 authority %s: %w", refusal.Clip(cert.Subject.String()), err)
		}
		key.Use, key.X5C = jwk.UseX509, []string{base64.StdEncoding.EncodeToString(cert.Raw)}
		if err := writeKey(&buf, i == 0, key); err != nil {
			return nil, err
		}
	}
	first := len(c.X509Authorities) == 0
	for _, use := range keyUses {
		keys := use.of(c)
		for _, kid := range slices.Sorted(maps.Keys(keys)) {
			key, err := jwk.New(keys[kid])
			if err != nil {
				return nil, fmt.Errorf("%s authority %s: %w", use.noun, refusal.Clip(kid), err)
			}
			key.Use, key.KeyID = use.name, kid
			if err := writeKey(&buf, first, key); err != nil {
				return nil, err
			}
			first = false
		}
	}
	buf.WriteString(end)
	return slices.Clip(buf.Bytes()), nil
}

func writeKey(buf *bytes.Buffer, first bool, key jwk.Key) error {
	if !first {
		buf.WriteByte(',')
	}
	return strictjson.WriteJSON(buf, key)
}

// PEM returns the X.509 authorities as a file of certificates, for programs that read nothing else. Such a file has
// neither the name of the domain nor the JWT keys.
func (b *Bundle) PEM() []byte {
	var buf bytes.Buffer
	for _, cert := range b.content.X509Authorities {
		buf.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return buf.Bytes()
}
