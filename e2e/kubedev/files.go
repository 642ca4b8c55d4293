package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// files are the paths of what the API server and its administrator present and verify.
type files struct {
	address             string
	ca                  string
	serving, servingKey string
	accountKey          string
	kubeconfig          string
}

// newFiles writes the files to dir, unless a process before has.
func newFiles(dir, address string) (*files, error) {
	f := &files{
		address: address, ca: filepath.Join(dir, "ca.pem"),
		serving: filepath.Join(dir, "serving.pem"), servingKey: filepath.Join(dir, "serving.key"),
		accountKey: filepath.Join(dir, "service-account.key"), kubeconfig: filepath.Join(dir, "kubeconfig"),
	}
	if _, err := os.Stat(f.kubeconfig); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca, err := cert.NewSelfSignedCACert(cert.Config{CommonName: "kubedev"}, caKey)
	if err != nil {
		return nil, err
	}
	caPEM, err := cert.EncodeCertificates(ca)
	if err != nil {
		return nil, err
	}
	serving, servingKey, err := issue(ca, caKey, &x509.Certificate{
		Subject: pkix.Name{CommonName: "kube-apiserver"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return nil, err
	}
	admin, adminKey, err := issue(ca, caKey, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	_, accountKey, err := issue(ca, caKey, &x509.Certificate{})
	if err != nil {
		return nil, err
	}
	for path, content := range map[string][]byte{
		f.ca: caPEM, f.serving: serving, f.servingKey: servingKey, f.accountKey: accountKey,
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return nil, err
		}
	}
	return f, clientcmd.WriteToFile(api.Config{
		Clusters: map[string]*api.Cluster{
			"kubedev": {Server: "https://" + address, CertificateAuthorityData: caPEM},
		},
		AuthInfos:      map[string]*api.AuthInfo{"admin": {ClientCertificateData: admin, ClientKeyData: adminKey}},
		Contexts:       map[string]*api.Context{"kubedev": {Cluster: "kubedev", AuthInfo: "admin"}},
		CurrentContext: "kubedev",
	}, f.kubeconfig)
}

// issue returns a certificate and its key, in PEM.
func issue(ca *x509.Certificate, caKey crypto.Signer, template *x509.Certificate) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = ca.NotBefore, ca.NotAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), caKey)
	if err != nil {
		return nil, nil, err
	}
	issued, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	if certPEM, err = cert.EncodeCertificates(issued); err != nil {
		return nil, nil, err
	}
	keyPEM, err = keyutil.MarshalPrivateKeyToPEM(key)
	return certPEM, keyPEM, err
}

// awaitReady waits until the API server reports that it is ready: the roles of RBAC are there too.
func (f *files) awaitReady(ctx context.Context, timeout time.Duration) error {
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	const interval = 100 * time.Millisecond
	var last error
	if err := wait.PollUntilContextTimeout(ctx, interval, timeout, true, func(ctx context.Context) (bool, error) {
		_, last = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return last == nil, nil
	}); err != nil {
		return fmt.Errorf("wait for the API server: %w: %w", err, last)
	}
	return nil
}
