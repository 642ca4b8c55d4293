package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// endpoints is the script command "endpoints": it serves the bundle of us.example.org from go-spiffe's handler, under
// certificates of several kinds, and sets the URL of each in the environment. It writes us.json, the bundle, and
// roots.pem, the root above all of the certificates.
func endpoints(ts *testscript.TestScript, _ bool, _ []string) {
	td := spiffeid.RequireTrustDomainFromString("us.example.org")
	root, key := issue(ts, nil, nil, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.URIs = true, x509.KeyUsageCertSign, []*url.URL{td.ID().URL()}
	})
	bundle := spiffebundle.FromX509Authorities(td, []*x509.Certificate{root})
	bundle.SetSequenceNumber(1)
	handler, err := federation.NewHandler(td, bundle)
	ts.Check(err)
	document, err := bundle.Marshal()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("us.json"), document, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("roots.pem"),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}), 0o600))

	for name, adjust := range map[string]func(*x509.Certificate){
		"WEB": func(*x509.Certificate) {},
		"SPIFFE": func(c *x509.Certificate) {
			c.URIs, c.IPAddresses = []*url.URL{{Scheme: "spiffe", Host: td.Name(), Path: "/server"}}, nil
		},
		"OTHERHOST": func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"bundle.example.org"}, nil },
		"EXPIRED":   func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Minute) },
		"PLAIN":     nil,
	} {
		server := httptest.NewUnstartedServer(handler)
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		if adjust == nil {
			server.Start()
		} else {
			cert, own := issue(ts, root, key, adjust)
			server.TLS = &tls.Config{
				MinVersion:   tls.VersionTLS12,
				Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: own}},
			}
			server.StartTLS()
		}
		ts.Defer(server.Close)
		ts.Setenv(name, "https://"+server.Listener.Addr().String()+"/")
	}
}

// webcert is the script command "webcert": it writes web.pem and web.key for 127.0.0.2, and roots.pem, the private root
// above, whose digest it sets in the environment.
func webcert(ts *testscript.TestScript, _ bool, _ []string) {
	root, by := issue(ts, nil, nil, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
	cert, key := issue(ts, root, by, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} })
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	for name, block := range map[string]*pem.Block{
		"roots.pem": {Type: "CERTIFICATE", Bytes: root.Raw}, "web.pem": {Type: "CERTIFICATE", Bytes: cert.Raw},
		"web.key": {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), pem.EncodeToMemory(block), 0o600))
	}
	ts.Setenv("ROOTS", fmt.Sprintf("%x", sha256.Sum256(root.Raw)))
}

// issue signs a certificate for 127.0.0.1, or a root if there is no signer.
func issue(
	ts *testscript.TestScript, signer *x509.Certificate, by *ecdsa.PrivateKey, adjust func(*x509.Certificate),
) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "us"}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	adjust(template)
	if signer == nil {
		signer, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, key.Public(), by)
	ts.Check(err)
	cert, err := x509.ParseCertificate(der)
	ts.Check(err)
	return cert, key
}
