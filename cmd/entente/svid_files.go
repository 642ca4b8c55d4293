package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node/inspect"
	"github.com/ententehq/entente/node/xdsbootstrap"
)

// Names of the files that make up an SVID.
const (
	svidFile   = xdsbootstrap.SVIDFile
	keyFile    = xdsbootstrap.KeyFile
	bundleFile = "bundle.pem"
)

// maxFileName is the longest name that file systems take.
const maxFileName = 255

// svidFiles are the names of all files that are written for an SVID.
var svidFiles = []string{svidFile, keyFile, bundleFile}

// wantedSVID is an X509-SVID as the command line asks for it.
type wantedSVID struct {
	id       spiffeid.ID
	ttl      *durationpb.Duration // nil: the domain's
	dnsNames []string
}

// heldSVID is one that was issued, with all that is written of it.
type heldSVID struct {
	key       *ecdsa.PrivateKey
	chain     [][]byte
	authority string
	issued    time.Time
	notAfter  time.Time
	bundle    *inspect.BundleReport
	// document is the one that bundle is of.
	document []byte
}

// issue gets an SVID for a key that is made here, and checks that it is what was asked for.
func (w wantedSVID) issue(ctx context.Context, client ententev1.SVIDServiceClient) (*heldSVID, *ententev1.IssueX509SVIDResponse, error) {
	key, csr, err := newRequest()
	if err != nil {
		return nil, nil, err
	}
	begun := time.Now()
	answer, err := client.IssueX509SVID(ctx, &ententev1.IssueX509SVIDRequest{SpiffeId: w.id.String(), Csr: csr, Ttl: w.ttl, DnsNames: w.dnsNames})
	if err != nil {
		return nil, nil, err
	}
	if len(answer.GetCertificates()) == 0 {
		return nil, nil, errors.New("the member answered without a certificate: report this as a defect")
	}
	leaf, err := x509.ParseCertificate(answer.GetCertificates()[0])
	if err != nil {
		return nil, nil, fmt.Errorf("the member answered with a certificate that cannot be read: %w", err)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != w.id.String() || !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, nil, fmt.Errorf("the member answered with the certificate of another key or ID than %s: report this as a defect", w.id)
	}
	bundle, err := inspect.ReadBundle(w.id.TrustDomain().Name(), answer.GetBundle())
	if err != nil {
		return nil, nil, fmt.Errorf("read the bundle of %s: %w", w.id.TrustDomain().Name(), err)
	}
	return &heldSVID{key, answer.GetCertificates(), answer.GetAuthorityId(), begun, leaf.NotAfter, bundle, answer.GetBundle()}, answer, nil
}

// newRequest makes a key and a request for a certificate of it. The server takes nothing but the key from that.
func newRequest() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate signing request: %w", err)
	}
	return key, csr, nil
}

// write writes the files of the SVID, all of one generation. With them go the bundles of other domains by name, if they are
// known (not nil): one map of all, and the authorities of each.
func (h *heldSVID) write(dir string, others map[string]trustedBundle) error {
	der, err := x509.MarshalPKCS8PrivateKey(h.key)
	if err != nil {
		return fmt.Errorf("encode the key: %w", err)
	}
	var chain []byte
	for _, c := range h.chain {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	parts := []part{
		{keyFile, secretMode, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})},
		{svidFile, publicMode, chain},
		{bundleFile, publicMode, h.bundle.PEM},
	}
	if others == nil {
		return writeGeneration(dir, parts)
	}
	documents := map[string][]byte{h.bundle.TrustDomain: h.document}
	all := map[string][]byte{h.bundle.TrustDomain: h.bundle.PEM}
	for domain, b := range others {
		if domain != h.bundle.TrustDomain {
			documents[domain], all[domain] = b.document, b.report.PEM
		}
	}
	bundles, err := inspect.BundleMap(documents)
	if err != nil {
		return err
	}
	parts = append(parts, part{xdsbootstrap.BundleMapFile, publicMode, bundles})
	for domain, roots := range all {
		if name := xdsbootstrap.RootsFile(domain); len(name) <= maxFileName {
			parts = append(parts, part{name, publicMode, roots})
		}
	}
	return writeGeneration(dir, parts)
}

// renewal is when it is renewed: when half of the life that it had left is over, or up to a tenth of that earlier, so that
// what was started together does not ask together. drawn is from 0 to 1.
func (h *heldSVID) renewal(drawn float64) time.Time {
	life := h.notAfter.Sub(h.issued)
	return h.issued.Add(life/2 - time.Duration(drawn*float64(life/10)))
}
