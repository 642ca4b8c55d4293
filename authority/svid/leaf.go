package svid

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/ententehq/entente/authority/keys"
)

// Leaf is an X509-SVID that is to be signed. It can only express what an SVID may contain.
//
// x509.CreateCertificate could sign it too, at half the speed: it verifies each signature that it makes. The bytes are
// those that x509.CreateCertificate writes, which a test compares. Before they are signed, x509.ParseCertificate reads
// them and [LintLeaf] checks them.
type Leaf struct {
	Serial              *big.Int
	notBefore, NotAfter time.Time
	spki                []byte // as x509.MarshalPKIXPublicKey writes it
	id                  spiffeid.ID
	dnsNames            []string
	IPs                 []netip.Addr
}

// NewLeaf returns an X509-SVID below issuer. It lives for ttl, but neither begins before issuer nor ends after it.
func NewLeaf(
	id spiffeid.ID, spki []byte, dnsNames []string, now time.Time, ttl time.Duration, issuer *x509.Certificate,
) (Leaf, error) {
	serial, err := newSerial()
	if err != nil {
		return Leaf{}, err
	}
	l := Leaf{Serial: serial, spki: spki, id: id, dnsNames: dnsNames,
		notBefore: now.Add(-Backdate).UTC().Truncate(time.Second), NotAfter: now.Add(ttl).UTC().Truncate(time.Second)}
	if l.notBefore.Before(issuer.NotBefore) {
		l.notBefore = issuer.NotBefore
	}
	if l.NotAfter.After(issuer.NotAfter) {
		l.NotAfter = issuer.NotAfter
	}
	return l, nil
}

var (
	oidECDSAWithSHA256        = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidExtKeyUsage            = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidSubjectKeyIdentifier   = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidAuthorityKeyIdentifier = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidServerAuth             = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	oidClientAuth             = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
)

// Tags of the fields of a certificate and of a GeneralName (RFC 5280).
var (
	tagVersion    = der.Tag(0).Constructed().ContextSpecific()
	tagExtensions = der.Tag(3).Constructed().ContextSpecific()
	tagKeyID      = der.Tag(0).ContextSpecific()
	tagDNSName    = der.Tag(2).ContextSpecific()
	tagIPAddress  = der.Tag(7).ContextSpecific()
	tagURI        = der.Tag(6).ContextSpecific()
)

// firstGeneralized is the first year that a UTCTime cannot express (RFC 5280, section 4.1.2.5).
const firstGeneralized = 2050

func addTime(b *cryptobyte.Builder, t time.Time) {
	if t.Year() < firstGeneralized {
		b.AddASN1UTCTime(t)
	} else {
		b.AddASN1GeneralizedTime(t)
	}
}

func addAlgorithm(b *cryptobyte.Builder) {
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidECDSAWithSHA256) })
}

func addExtension(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, critical bool, value func(*cryptobyte.Builder)) {
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(der.OCTET_STRING, value)
	})
}

// tbs returns the bytes to be signed.
func (l Leaf) tbs(issuer *x509.Certificate) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, 1024))
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tagVersion, func(b *cryptobyte.Builder) { b.AddASN1Int64(2) }) // version 3
		b.AddASN1BigInt(l.Serial)
		addAlgorithm(b)
		b.AddBytes(issuer.RawSubject)
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			addTime(b, l.notBefore)
			addTime(b, l.NotAfter)
		})
		b.AddASN1(der.SEQUENCE, func(*cryptobyte.Builder) {}) // the subject is empty
		b.AddBytes(l.spki)
		b.AddASN1(tagExtensions, func(b *cryptobyte.Builder) {
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) { l.addExtensions(b, issuer) })
		})
	})
	return b.Bytes()
}

func (l Leaf) addExtensions(b *cryptobyte.Builder, issuer *x509.Certificate) {
	addExtension(b, oidKeyUsage, true, func(b *cryptobyte.Builder) {
		// A BIT STRING of one bit, the first: digitalSignature.
		b.AddASN1(der.BIT_STRING, func(b *cryptobyte.Builder) { b.AddBytes([]byte{7, 0x80}) })
	})
	addExtension(b, oidExtKeyUsage, false, func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidServerAuth)
			b.AddASN1ObjectIdentifier(oidClientAuth)
		})
	})
	addExtension(b, oidBasicConstraints, true, func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(*cryptobyte.Builder) {}) // cA is false by default
	})
	addExtension(b, oidSubjectKeyIdentifier, false, func(b *cryptobyte.Builder) {
		b.AddASN1OctetString(keyIDOf(l.spki))
	})
	if len(issuer.SubjectKeyId) > 0 {
		addExtension(b, oidAuthorityKeyIdentifier, false, func(b *cryptobyte.Builder) {
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(tagKeyID, func(b *cryptobyte.Builder) { b.AddBytes(issuer.SubjectKeyId) })
			})
		})
	}
	addExtension(b, oidSubjectAltName, true, func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, name := range l.dnsNames {
				b.AddASN1(tagDNSName, func(b *cryptobyte.Builder) { b.AddBytes([]byte(name)) })
			}
			for _, ip := range l.IPs {
				b.AddASN1(tagIPAddress, func(b *cryptobyte.Builder) { b.AddBytes(ip.AsSlice()) })
			}
			b.AddASN1(tagURI, func(b *cryptobyte.Builder) { b.AddBytes([]byte(l.id.String())) })
		})
	})
}

// enclose returns a certificate of signed bytes and their signature.
func enclose(tbs, signature []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+len(signature)+32))
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		addAlgorithm(b)
		b.AddASN1BitString(signature)
	})
	return b.Bytes()
}

// Sign signs the certificate with the P-256 key of an authority. The exact bytes to be signed pass lint first, or
// nothing is signed.
func (l Leaf) Sign(issuer *x509.Certificate, key crypto.Signer, lint func(*x509.Certificate) error) ([]byte, error) {
	tbs, err := l.tbs(issuer)
	if err != nil {
		return nil, fmt.Errorf("write the certificate: %w", err)
	}
	unsigned, err := enclose(tbs, nil)
	if err != nil {
		return nil, fmt.Errorf("write the certificate: %w", err)
	}
	c, err := x509.ParseCertificate(unsigned)
	if err != nil {
		return nil, fmt.Errorf("%w: it is not a certificate: %w", ErrLint, err)
	}
	if err := lint(c); err != nil {
		return nil, err
	}
	signature, err := keys.SignDigest(key, sha256.Sum256(tbs))
	if err != nil {
		return nil, err
	}
	return enclose(tbs, signature)
}
