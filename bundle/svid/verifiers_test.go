package svid_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle/internal/bundletest"
	"github.com/ententehq/entente/bundle/svid"
)

// hierarchy is a path of an anchor, a company's issuing CA, a signing certificate of the domain and a leaf, whose
// templates a test changes.
type hierarchy struct{ anchor, issuing, signing, leaf *x509.Certificate }

// keyed are the keys of a hierarchy.
type keyed struct{ anchor, issuing, signing, leaf crypto.Signer }

// build signs the hierarchy, and returns it leaf first.
func (h hierarchy) build(t *testing.T, keys keyed) []*x509.Certificate {
	t.Helper()
	sign := func(template, parent *x509.Certificate, key, signer crypto.Signer) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return cert
	}
	anchor := sign(h.anchor, h.anchor, keys.anchor, keys.anchor)
	issuing := sign(h.issuing, anchor, keys.issuing, keys.anchor)
	signing := sign(h.signing, issuing, keys.signing, keys.issuing)
	return []*x509.Certificate{sign(h.leaf, signing, keys.leaf, keys.signing), signing, issuing, anchor}
}

func newHierarchy() hierarchy {
	company := func(name string) *x509.Certificate {
		c := bundletest.CATemplate(bundletest.Home)
		c.Subject, c.URIs = pkix.Name{Organization: []string{"Example"}, CommonName: name}, nil
		return c
	}
	h := hierarchy{anchor: company("Root"), issuing: company("Issuing CA")}
	h.signing = bundletest.CATemplate(bundletest.Home)
	h.signing.MaxPathLenZero = true
	h.leaf = bundletest.SVIDTemplate(spiffeid.RequireFromString("spiffe://eu.example.org/web"))
	h.leaf.Subject, h.leaf.DNSNames = pkix.Name{}, []string{"web.example.org"}
	h.leaf.IPAddresses = []net.IP{net.IPv4(10, 1, 2, 3), net.ParseIP("fd00::1")}
	return h
}

// raw is an extension with a value that crypto/x509 would not write.
func raw(t *testing.T, critical bool, value any, oid ...int) pkix.Extension {
	t.Helper()
	der, ok := value.([]byte)
	if !ok {
		var err error
		der, err = asn1.Marshal(value)
		require.NoError(t, err)
	}
	return pkix.Extension{Id: oid, Critical: critical, Value: der}
}

// subtrees encodes name constraints of one kind of name.
func subtrees(t *testing.T, excluded bool, tag int, base []byte, after ...asn1.RawValue) pkix.Extension {
	t.Helper()
	name := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: base, IsCompound: tag == 4}
	entry, err := asn1.Marshal(append([]asn1.RawValue{name}, after...))
	require.NoError(t, err)
	list := asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: entry}
	if excluded {
		list.Tag = 1
	}
	return raw(t, false, []asn1.RawValue{list}, 2, 5, 29, 30)
}

// usage is a key usage with the given content of its bit string.
func usage(t *testing.T, critical bool, bits ...byte) pkix.Extension {
	t.Helper()
	return raw(t, critical, append([]byte{3, byte(len(bits))}, bits...), 2, 5, 29, 15)
}

// byGo verifies as a Go program without SPIFFE does: as a server by its names, and as a client.
func byGo(path []*x509.Certificate) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(path[len(path)-1])
	for _, c := range path[1 : len(path)-1] {
		between.AddCert(c)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		options := x509.VerifyOptions{
			Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}, DNSName: "web.example.org",
		}
		if _, err := path[0].Verify(options); err != nil {
			return err
		}
	}
	return nil
}

// byGoSPIFFE loads a path as an X509-SVID and verifies it, as both ends of a connection with go-spiffe do.
func byGoSPIFFE(path []*x509.Certificate, key crypto.Signer) error {
	var sent []byte
	for _, c := range path[:len(path)-1] {
		sent = append(sent, c.Raw...)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	loaded, err := x509svid.ParseRaw(sent, pkcs8)
	if err != nil {
		return err
	}
	anchors := x509bundle.FromX509Authorities(bundletest.Home, path[len(path)-1:])
	_, _, err = x509svid.Verify(loaded.Certificates, anchors)
	return err
}

// byOpenSSL verifies by the command, for both purposes.
func byOpenSSL(t *testing.T, path []*x509.Certificate) error {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, certificates ...*x509.Certificate) string {
		var text bytes.Buffer
		for _, c := range certificates {
			require.NoError(t, pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
		}
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, text.Bytes(), 0o600))
		return file
	}
	leaf, anchor := write("leaf.pem", path[0]), write("anchor.pem", path[len(path)-1])
	between := write("between.pem", path[1:len(path)-1]...)
	for _, purpose := range []string{"sslserver", "sslclient"} {
		out, err := exec.CommandContext(t.Context(), "openssl", "verify", "-purpose", purpose, "-auth_level", "2",
			"-no-CApath", "-no-CAstore", "-CAfile", anchor, "-untrusted", between, leaf).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
}

// TestVerifiersAgree holds the rules above a leaf against the programs that they stand for: a path is accepted exactly
// if Go, go-spiffe and OpenSSL all accept it.
func TestVerifiersAgree(t *testing.T) {
	_, missing := exec.LookPath("openssl")
	openssl := missing == nil
	t.Run("OpenSSL is there", func(t *testing.T) {
		if !openssl {
			t.Skip("left out: the comparison with OpenSSL, whose command openssl is not on the PATH")
		}
	})
	keys := keyed{bundletest.NewKey(t), bundletest.NewKey(t), bundletest.NewKey(t), bundletest.NewKey(t)}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	network := func(text string) *net.IPNet {
		_, n, err := net.ParseCIDR(text)
		require.NoError(t, err)
		return n
	}
	name := func(n pkix.Name) []byte {
		der, err := asn1.Marshal(n.ToRDNSequence())
		require.NoError(t, err)
		return der
	}
	extra := func(c *x509.Certificate, e ...pkix.Extension) { c.ExtraExtensions = append(c.ExtraExtensions, e...) }
	context := func(tag int, compound bool, content []byte) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: compound, Bytes: content}
	}
	const issuing = `certificate "CN=Issuing CA,O=Example" (serial 7): `
	const root = `certificate "CN=Root,O=Example" (serial 5): `
	for _, test := range []struct {
		name   string
		change func(*hierarchy, *keyed)
		want   string // "" is accepted
	}{
		{"as it should be", nil, ""},

		{"key usage not critical", func(h *hierarchy, _ *keyed) {
			h.issuing.KeyUsage = 0
			extra(h.issuing, usage(t, false, 1, 0x86))
		}, ""},
		{"key usage not critical on the signing certificate", func(h *hierarchy, _ *keyed) {
			h.signing.KeyUsage = 0
			extra(h.signing, usage(t, false, 1, 0x06))
		}, ""},
		{"no key usage", func(h *hierarchy, _ *keyed) { h.issuing.KeyUsage = 0 },
			issuing + "key usage: it is missing, and go-spiffe requires keyCertSign below an anchor"},
		{"no key usage on the anchor", func(h *hierarchy, _ *keyed) { h.anchor.KeyUsage = 0 }, ""},
		{"key usage without keyCertSign", func(h *hierarchy, _ *keyed) { h.issuing.KeyUsage = x509.KeyUsageCRLSign },
			issuing + "key usage: it has no keyCertSign"},
		{"key usage of no bits on the anchor", func(h *hierarchy, _ *keyed) {
			h.anchor.KeyUsage = 0
			extra(h.anchor, usage(t, true, 0))
		}, root + "key usage: it has no keyCertSign"},
		{"key usage without keyCertSign on the anchor",
			func(h *hierarchy, _ *keyed) { h.anchor.KeyUsage = x509.KeyUsageDigitalSignature },
			root + "key usage: it has no keyCertSign"},
		{"not a CA", func(h *hierarchy, _ *keyed) { h.issuing.IsCA = false },
			issuing + "basic constraints: it is not the certificate of a CA"},
		{"no basic constraints", func(h *hierarchy, _ *keyed) {
			h.issuing.IsCA, h.issuing.BasicConstraintsValid = false, false
		}, issuing + "basic constraints: it is not the certificate of a CA"},

		{"both extended usages", func(h *hierarchy, _ *keyed) {
			h.issuing.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
		}, ""},
		{"server authentication alone",
			func(h *hierarchy, _ *keyed) { h.issuing.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
			issuing + "extended key usage: it is present and does not have both serverAuth and clientAuth, which " +
				"OpenSSL requires also above a leaf"},
		{"client authentication alone on the anchor",
			func(h *hierarchy, _ *keyed) { h.anchor.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
			root + "extended key usage: it is present and does not have both serverAuth and clientAuth, which " +
				"OpenSSL requires also above a leaf"},
		{"any extended usage",
			func(h *hierarchy, _ *keyed) { h.issuing.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
			issuing + "extended key usage: it is present and does not have both serverAuth and clientAuth, which " +
				"OpenSSL requires also above a leaf"},

		{"path length of one", func(h *hierarchy, _ *keyed) { h.anchor.MaxPathLen = 2 }, ""},
		{"path length too short", func(h *hierarchy, _ *keyed) { h.issuing.MaxPathLenZero = true },
			issuing + "basic constraints: its path length allows 0 signing certificates below it, and there are 1"},
		{"path length too short on the anchor", func(h *hierarchy, _ *keyed) { h.anchor.MaxPathLen = 1 },
			root + "basic constraints: its path length allows 1 signing certificates below it, and there are 2"},

		{"permitted URI",
			func(h *hierarchy, _ *keyed) { h.issuing.PermittedURIDomains = []string{"eu.example.org"} }, ""},
		{"permitted URIs below",
			func(h *hierarchy, _ *keyed) { h.issuing.PermittedURIDomains = []string{".example.org"} }, ""},
		{"permitted URI of a parent domain", func(h *hierarchy, _ *keyed) {
			h.issuing.PermittedURIDomains = []string{"example.org"}
		}, issuing + `name constraints: the URI "spiffe://eu.example.org/web" is in no permitted subtree`},
		{"permitted URI of another domain on the anchor", func(h *hierarchy, _ *keyed) {
			h.anchor.PermittedURIDomains = []string{"us.example.org"}
		}, root + `name constraints: the URI "spiffe://eu.example.org/web" is in no permitted subtree`},
		{"excluded URI", func(h *hierarchy, _ *keyed) { h.issuing.ExcludedURIDomains = []string{"eu.example.org"} },
			issuing + `name constraints: the URI "spiffe://eu.example.org/web" is in an excluded subtree`},
		{"excluded URI of a parent domain", func(h *hierarchy, _ *keyed) {
			h.issuing.ExcludedURIDomains = []string{"example.org"}
		}, issuing + `name constraints: the URI "spiffe://eu.example.org/web" is in an excluded subtree`},
		{"excluded URI of another domain",
			func(h *hierarchy, _ *keyed) { h.issuing.ExcludedURIDomains = []string{"us.example.org"} }, ""},
		{"permitted DNS names",
			func(h *hierarchy, _ *keyed) { h.issuing.PermittedDNSDomains = []string{"example.org"} }, ""},
		{"permitted DNS names elsewhere", func(h *hierarchy, _ *keyed) {
			h.issuing.PermittedDNSDomains = []string{"corp.example"}
		}, issuing + `name constraints: the DNS name "web.example.org" is in no permitted subtree`},
		{"permitted DNS names elsewhere, critical", func(h *hierarchy, _ *keyed) {
			h.issuing.PermittedDNSDomains, h.issuing.PermittedDNSDomainsCritical = []string{"corp.example"}, true
		}, issuing + `name constraints: the DNS name "web.example.org" is in no permitted subtree`},
		{"excluded DNS names", func(h *hierarchy, _ *keyed) { h.issuing.ExcludedDNSDomains = []string{"example.org"} },
			issuing + `name constraints: the DNS name "web.example.org" is in an excluded subtree`},
		{"permitted addresses", func(h *hierarchy, _ *keyed) {
			h.issuing.PermittedIPRanges = []*net.IPNet{network("10.0.0.0/8"), network("fd00::/8")}
		}, ""},
		{"permitted addresses of one family", func(h *hierarchy, _ *keyed) {
			h.issuing.PermittedIPRanges = []*net.IPNet{network("10.0.0.0/8")}
		}, issuing + `name constraints: the IP address "fd00::1" is in no permitted subtree`},
		{"excluded addresses", func(h *hierarchy, _ *keyed) {
			h.issuing.ExcludedIPRanges = []*net.IPNet{network("0.0.0.0/0")}
		}, issuing + `name constraints: the IP address "10.1.2.3" is in an excluded subtree`},
		{"permitted directory of the company", func(h *hierarchy, _ *keyed) {
			extra(h.anchor, subtrees(t, false, 4, name(pkix.Name{Organization: []string{"EXAMPLE"}})))
			h.signing.Subject = pkix.Name{Organization: []string{"Example"}, CommonName: "authority"}
		}, ""},
		{"permitted directory of another company", func(h *hierarchy, _ *keyed) {
			extra(h.anchor, subtrees(t, false, 4, name(pkix.Name{Organization: []string{"Example"}})))
		}, root + `name constraints: the subject "CN=authority of eu.example.org" is in no permitted subtree`},
		{"excluded directory", func(h *hierarchy, _ *keyed) {
			extra(h.anchor, subtrees(t, true, 4, name(pkix.Name{CommonName: "Authority  of EU.example.org"})))
		}, root + `name constraints: the subject "CN=authority of eu.example.org" is in an excluded subtree`},
		{"directory constraints that are critical", func(h *hierarchy, _ *keyed) {
			e := subtrees(t, false, 4, name(pkix.Name{}))
			e.Critical = true
			extra(h.issuing, e)
		}, issuing + "name constraints: it is critical, and Go does not support it, or not all of it"},
		{"a subtree with a maximum", func(h *hierarchy, _ *keyed) {
			extra(h.issuing, subtrees(t, false, 2, []byte("example.org"), context(1, false, []byte{5})))
		}, issuing + "name constraints: a permitted subtree has a minimum or a maximum, which OpenSSL refuses"},
		{"an excluded subtree with a minimum", func(h *hierarchy, _ *keyed) {
			extra(h.issuing, subtrees(t, true, 6, []byte("us.example.org"), context(0, false, []byte{1})))
		}, issuing + "name constraints: an excluded subtree has a minimum or a maximum, which OpenSSL refuses"},

		{"a key identifier of another issuer", func(h *hierarchy, _ *keyed) {
			extra(h.issuing, raw(t, false, []asn1.RawValue{context(0, false, []byte{1, 2, 3})}, 2, 5, 29, 35))
			h.anchor.SubjectKeyId = []byte{9}
		}, issuing + "authority key identifier: it is 010203, and the subject key identifier of its issuer is 09; " +
			"OpenSSL finds no issuer"},
		{"a serial number of another issuer", func(h *hierarchy, _ *keyed) {
			extra(h.issuing, raw(t, false, []asn1.RawValue{
				context(1, true, append([]byte{0xa4, byte(len(name(h.anchor.Subject)))}, name(h.anchor.Subject)...)),
				context(2, false, []byte{77}),
			}, 2, 5, 29, 35))
		}, issuing + "authority key identifier: it names another serial number than that of its issuer, 5; OpenSSL " +
			"finds no issuer"},
		{"the serial number of the issuer", func(h *hierarchy, _ *keyed) {
			extra(h.issuing, raw(t, false, []asn1.RawValue{
				context(1, true, append([]byte{0xa4, byte(len(name(h.anchor.Subject)))}, name(h.anchor.Subject)...)),
				context(2, false, []byte{5}),
			}, 2, 5, 29, 35))
		}, ""},
		{"the name of another issuer", func(h *hierarchy, _ *keyed) {
			other := name(pkix.Name{CommonName: "other"})
			extra(h.issuing, raw(t, false, []asn1.RawValue{
				context(1, true, append([]byte{0xa4, byte(len(other))}, other...)), context(2, false, []byte{5}),
			}, 2, 5, 29, 35))
		}, issuing + "authority key identifier: it names another issuer than that of its issuer's certificate; " +
			"OpenSSL finds no issuer"},
		{"an anchor that names another key", func(h *hierarchy, _ *keyed) {
			h.anchor.SubjectKeyId = []byte{9}
			extra(h.anchor, raw(t, false, []asn1.RawValue{context(0, false, []byte{8})}, 2, 5, 29, 35))
		}, root + "authority key identifier: it is 08, and the subject key identifier of its issuer is 09; OpenSSL " +
			"finds no issuer"},

		{"an unknown critical extension", func(h *hierarchy, _ *keyed) {
			extra(h.issuing, raw(t, true, []byte{5, 0}, 1, 2, 3))
		}, issuing + "extension 1.2.3: it is critical, and Go does not support it, or not all of it"},
		{"an unknown extension", func(h *hierarchy, _ *keyed) {
			extra(h.issuing, raw(t, false, []byte{5, 0}, 1, 2, 3))
		}, ""},
		{"a required policy", func(h *hierarchy, _ *keyed) {
			extra(h.issuing, raw(t, true, []asn1.RawValue{context(0, false, []byte{0})}, 2, 5, 29, 36))
		}, issuing + "policy constraints: they require a policy that not all certificates below have"},
		{"a weak RSA key", func(_ *hierarchy, k *keyed) { k.issuing = weak },
			issuing + "subject public key: RSA key of 1024 bits; OpenSSL and Go accept 2048 to 8192"},
		{"an RSA key", func(_ *hierarchy, k *keyed) { k.issuing = bundletest.RSAKey() }, ""},
		{"an Ed25519 key", func(_ *hierarchy, k *keyed) { k.issuing = bundletest.NewEd25519Key(t) }, ""},
		{"expired", func(h *hierarchy, _ *keyed) {
			h.issuing.NotBefore, h.issuing.NotAfter = time.Unix(0, 0), time.Unix(3600, 0)
		}, issuing + "validity: it ended at 1970-01-01T01:00:00Z"},
		{"an anchor that begins later", func(h *hierarchy, _ *keyed) {
			h.anchor.NotBefore = time.Date(2090, 1, 2, 3, 4, 5, 0, time.UTC)
			h.anchor.NotAfter = h.anchor.NotBefore.Add(time.Hour)
		}, root + "validity: it begins at 2090-01-02T03:04:05Z"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, k := newHierarchy(), keys
			h.anchor.SerialNumber, h.issuing.SerialNumber = big.NewInt(5), big.NewInt(7)
			if test.change != nil {
				test.change(&h, &k)
			}
			path := h.build(t, k)
			_, err := svid.Verify(path[:3], x509bundle.FromX509Authorities(bundletest.Home, path[3:]), time.Now())
			others := map[string]error{"Go": byGo(path), "go-spiffe": byGoSPIFFE(path, k.leaf)}
			if openssl {
				others["OpenSSL"] = byOpenSSL(t, path)
			}
			if test.want == "" {
				require.NoError(t, err)
				for who, err := range others {
					require.NoError(t, err, who)
				}
				return
			}
			require.EqualError(t, err, "the X509-SVID does not lead to an authority of its trust domain: "+
				"spiffe://eu.example.org/web: "+test.want)
			if openssl {
				require.Error(t, errors.Join(slices.Collect(maps.Values(others))...), "all others accept it")
			}
		})
	}
}

// TestSigningCertificateOfAnotherDomain: this rule is of the SPIFFE standard alone, and of none of the programs.
func TestSigningCertificateOfAnotherDomain(t *testing.T) {
	for uri, want := range map[string]string{
		"spiffe://us.example.org":    "a signing certificate of eu.example.org has the ID spiffe://us.example.org",
		"spiffe://eu.example.org/ca": "a signing certificate of eu.example.org has the ID spiffe://eu.example.org/ca",
	} {
		h := newHierarchy()
		parsed, err := url.Parse(uri)
		require.NoError(t, err)
		h.signing.URIs = []*url.URL{parsed}
		key := bundletest.NewKey(t)
		path := h.build(t, keyed{key, key, key, key})
		require.ErrorContains(t, svid.CheckPath(path, bundletest.Home), "subject alternative name: "+want)
	}
}
