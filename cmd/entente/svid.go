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
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node"
)

func (a *app) svidCommand() *cobra.Command {
	return group("svid", "Identities in hosted trust domains", a.svidX509Command(), a.svidJWTCommand())
}

// lifetime is a --ttl that was given, or nil.
func lifetime(cmd *cobra.Command, ttl time.Duration) *durationpb.Duration {
	if !cmd.Flags().Changed("ttl") {
		return nil
	}
	return durationpb.New(ttl)
}

func (a *app) svidX509Command() *cobra.Command {
	var id, dir string
	var ttl time.Duration
	var dnsNames []string
	cmd := &cobra.Command{
		Use:   "x509 --spiffe-id ID --dir DIR",
		Short: "Issue an X509-SVID: writes svid.pem, svid.key and bundle.pem",
		Long: `Issue an X509-SVID for a key that is made here and never leaves this machine.

Writes into --dir, which is made where it is missing, replacing each file as a whole: svid.pem (the certificate and
its intermediates), svid.key (PKCS #8, mode 0600) and bundle.pem (the X.509 authorities of the SVID's trust domain).
They are what --cert, --key and --bundle take, where the trust domain is the cluster's home.`,
		Args:    arguments(),
		PreRunE: required("spiffe-id", "dir"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, cmd *cobra.Command, _ []string) error {
			parsed, err := spiffeid.FromString(id)
			if err != nil {
				return usagef("--spiffe-id %q is no SPIFFE ID: %v", id, err)
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf("--dir %s cannot be made (%w): name a folder that this user may write to", dir, bare(err))
			}
			key, csr, err := newRequest()
			if err != nil {
				return err
			}
			issued, err := ententev1.NewSVIDServiceClient(conn).IssueX509SVID(ctx, &ententev1.IssueX509SVIDRequest{
				SpiffeId: id, Csr: csr, Ttl: lifetime(cmd, ttl), DnsNames: dnsNames,
			})
			if err != nil {
				return err
			}
			if err := writeSVID(dir, parsed, key, issued); err != nil {
				return err
			}
			return a.print(issued, func(t *table) {
				t.field("spiffe id", id)
				t.field("expires", exact(issued.GetExpireTime()))
				t.field("authority", issued.GetAuthorityId())
				for _, f := range []string{svidFile, keyFile, bundleFile} {
					t.field("written", filepath.Join(dir, f))
				}
			})
		}),
	}
	f := cmd.Flags()
	f.StringVar(&id, "spiffe-id", "", "the `ID` to issue: spiffe://DOMAIN/PATH")
	f.StringVar(&dir, "dir", "", "`FOLDER` to write to")
	f.DurationVar(&ttl, "ttl", 0, "lifetime (the domain's x509-svid-ttl if left out)")
	f.StringArrayVar(&dnsNames, "dns", nil, "DNS `NAME` that the certificate is good for too; can be given again")
	return cmd
}

// Names of the files that make up an SVID.
const (
	svidFile   = "svid.pem"
	keyFile    = "svid.key"
	bundleFile = "bundle.pem"
)

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

// writeSVID checks that what was issued belongs to the key and the ID, and writes the three files.
func writeSVID(dir string, id spiffeid.ID, key *ecdsa.PrivateKey, issued *ententev1.IssueX509SVIDResponse) error {
	if len(issued.GetCertificates()) == 0 {
		return errors.New("the member answered without a certificate: report this as a defect")
	}
	leaf, err := x509.ParseCertificate(issued.GetCertificates()[0])
	if err != nil {
		return fmt.Errorf("the member answered with a certificate that cannot be read: %w", err)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != id.String() || !key.PublicKey.Equal(leaf.PublicKey) {
		return fmt.Errorf("the member answered with the certificate of another key or ID than %s: report this as a defect", id)
	}
	bundle, err := node.ReadBundle(id.TrustDomain().Name(), issued.GetBundle())
	if err != nil {
		return fmt.Errorf("read the bundle of %s: %w", id.TrustDomain().Name(), err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the key: %w", err)
	}
	var chain []byte
	for _, c := range issued.GetCertificates() {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	for _, f := range []struct {
		name string
		mode os.FileMode
		data []byte
	}{
		{keyFile, secretMode, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})},
		{svidFile, publicMode, chain},
		{bundleFile, publicMode, bundle.PEM},
	} {
		err := writeFileBy(filepath.Join(dir, f.name), f.mode, func(to *os.File) error {
			_, err := to.Write(f.data)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *app) svidJWTCommand() *cobra.Command {
	var id string
	var audience []string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "jwt --spiffe-id ID --audience A",
		Short: "Issue a JWT-SVID and print it: a secret until it expires",
		Args:  arguments(),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if err := required("spiffe-id", "audience")(cmd, args); err != nil {
				return err
			}
			if slices.Contains(audience, "") {
				return usagef("--audience is empty: name who is to accept the token, such as https://pay.example.org")
			}
			return nil
		},
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, cmd *cobra.Command, _ []string) error {
			issued, err := ententev1.NewSVIDServiceClient(conn).IssueJWTSVID(ctx, &ententev1.IssueJWTSVIDRequest{
				SpiffeId: id, Audience: audience, Ttl: lifetime(cmd, ttl),
			})
			if err != nil {
				return err
			}
			return a.print(issued, func(t *table) { t.otherwise("%s", issued.GetToken()) })
		}),
	}
	f := cmd.Flags()
	f.StringVar(&id, "spiffe-id", "", "the `ID` to issue: spiffe://DOMAIN/PATH")
	f.StringArrayVar(&audience, "audience", nil, "whom it is for; can be given again")
	f.DurationVar(&ttl, "ttl", 0, "lifetime (the domain's jwt-svid-ttl if left out)")
	return cmd
}
