package webcert

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// certificatePoll is the interval at which the files are read. ACME clients and mounted secrets replace them long
	// before expiry.
	certificatePoll = 10 * time.Second
	// maxCertificateFileBytes is far above any chain.
	maxCertificateFileBytes = 1 << 20
)

// CertificateFilesConfig is the configuration of [CertificateFiles].
type CertificateFilesConfig struct {
	// CertFile and KeyFile are PEM files: the certificate with its chain, and its private key.
	CertFile, KeyFile string
	Logger            hclog.Logger
	Registerer        prometheus.Registerer
	// Poll is the interval at which the files are read. It is 10 s if zero.
	Poll time.Duration
}

// CertificateFiles is a certificate for the https_web profile that follows its files. When they change it presents the
// new pair. If the new pair is broken it keeps the old one, logs an error and counts it.
type CertificateFiles struct {
	config  CertificateFilesConfig
	current atomic.Pointer[tls.Certificate]
	reloads *prometheus.CounterVec

	mu    sync.Mutex
	files filePair
	seen  fileState // of the last attempt, good or not
}

// filePair names the files of a certificate.
type filePair struct{ cert, key string }

// fileState is the content of the files. The content is compared, since a mounted secret can change within the
// resolution of a file's time.
type fileState struct{ cert, key []byte }

// NewCertificateFiles reads the pair, and fails if it is not valid.
func NewCertificateFiles(c CertificateFilesConfig) (*CertificateFiles, error) {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Poll == 0 {
		c.Poll = certificatePoll
	}
	f := &CertificateFiles{config: c, reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "entente_bundle_endpoint_certificate_reloads_total",
		Help: "Attempts to take a changed certificate file over, by result.",
	}, []string{"result"})}
	for _, result := range []string{"ok", "failed"} {
		f.reloads.WithLabelValues(result)
	}
	take, err := f.Prepare(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, err
	}
	take()
	expiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "entente_bundle_endpoint_certificate_expiry_timestamp_seconds",
		Help: "When the certificate of the https_web endpoint expires.",
	}, func() float64 { return float64(f.current.Load().Leaf.NotAfter.Unix()) })
	if err := register(c.Registerer, f.reloads, expiry); err != nil {
		return nil, err
	}
	return f, nil
}

// Certificate returns the current certificate.
func (f *CertificateFiles) Certificate(context.Context, string) (*tls.Certificate, error) {
	return f.current.Load(), nil
}

// Prepare reads and checks a pair, which can be in other files than before. The certificate is presented, and its files
// are followed, once take is called.
func (f *CertificateFiles) Prepare(certFile, keyFile string) (take func(), err error) {
	files := filePair{certFile, keyFile}
	state, err := files.read()
	if err != nil {
		return nil, err
	}
	cert, err := files.parse(state)
	if err != nil {
		return nil, err
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.files, f.seen = files, state
		f.current.Store(cert)
	}, nil
}

// Run polls the files until ctx ends.
func (f *CertificateFiles) Run(ctx context.Context) error {
	ticker := time.NewTicker(f.config.Poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			f.reload()
		}
	}
}

// reload presents a changed pair. A broken pair is reported once for each change.
func (f *CertificateFiles) reload() {
	f.mu.Lock()
	defer f.mu.Unlock()
	state, err := f.files.read()
	if err == nil && bytes.Equal(state.cert, f.seen.cert) && bytes.Equal(state.key, f.seen.key) {
		return
	}
	if err != nil && f.seen.cert == nil {
		return
	}
	f.seen = state
	var cert *tls.Certificate
	if err == nil {
		cert, err = f.files.parse(state)
	}
	if err != nil {
		f.reloads.WithLabelValues("failed").Inc()
		f.config.Logger.Error("bundle endpoint keeps its certificate: the changed files are not usable",
			"error", err, "expires", f.current.Load().Leaf.NotAfter)
		return
	}
	f.current.Store(cert)
	f.reloads.WithLabelValues("ok").Inc()
	f.config.Logger.Info(
		"bundle endpoint has a new certificate",
		"file",
		f.files.cert,
		"expires",
		cert.Leaf.NotAfter,
	)
}

func (p filePair) read() (fileState, error) {
	cert, err := readBounded(p.cert)
	if err != nil {
		return fileState{}, fmt.Errorf("read cert_file: %w", err)
	}
	key, err := readBounded(p.key)
	if err != nil {
		return fileState{}, fmt.Errorf("read key_file: %w", err)
	}
	return fileState{cert: cert, key: key}, nil
}

func (p filePair) parse(state fileState) (*tls.Certificate, error) {
	cert, err := tls.X509KeyPair(state.cert, state.key)
	if err != nil {
		return nil, fmt.Errorf("cert_file %s with key_file %s: %w", p.cert, p.key, err)
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, fmt.Errorf("cert_file %s: %w", p.cert, err)
		}
	}
	return &cert, nil
}

func readBounded(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(file, maxCertificateFileBytes+1))
	err = errors.Join(err, file.Close())
	if err == nil && len(data) > maxCertificateFileBytes {
		err = fmt.Errorf("%s has more than %d bytes", name, maxCertificateFileBytes)
	}
	return data, err
}

func register(registerer prometheus.Registerer, collectors ...prometheus.Collector) error {
	if registerer == nil {
		return nil
	}
	for _, c := range collectors {
		if err := registerer.Register(c); err != nil {
			return fmt.Errorf("register metrics of web certificates: %w", err)
		}
	}
	return nil
}
