package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// serverName is the DNS name in the listener's certificate, besides its loopback address.
const serverName = "vault.test"

// identity is the listener's certificate and the CA above it.
type identity struct {
	leaf tls.Certificate
	ca   []byte // PEM

	above *x509.Certificate
	key   *ecdsa.PrivateKey // of the CA
}

func newIdentity() (identity, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(
			now.UnixNano(),
		), Subject: pkix.Name{CommonName: "vaultdev CA " + now.Format(time.RFC3339Nano)},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return identity{}, err
	}
	above, err := x509.ParseCertificate(caDER)
	if err != nil {
		return identity{}, err
	}
	i := identity{ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), above: above, key: caKey}
	return i.renewed()
}

// renewed is another leaf below the same CA.
func (i identity) renewed() (identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: serverName},
		DNSNames: []string{serverName}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: i.above.NotBefore, NotAfter: i.above.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, i.above, key.Public(), i.key)
	if err != nil {
		return identity{}, err
	}
	i.leaf = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return i, nil
}
