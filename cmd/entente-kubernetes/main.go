// Command entente-kubernetes is the controller of one Kubernetes cluster: see docs/guides/kubernetes.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	runtimelog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/kubernetes"
)

var version = "dev" // set when it is built

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := command(os.Stderr).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to stop
	}
}

// options are the flags.
type options struct {
	addresses                  []string
	certFile, keyFile, roots   string
	workloadSocket, home       string
	kubeconfig, namespace      string
	secretNamespaces           []string
	healthListen, metricListen string
	logLevel, logFormat        string
}

func command(stderr io.Writer) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "entente-kubernetes",
		Short: "Bring the trust bundles of Entente into a Kubernetes cluster",
		Long: `Run the controller of one Kubernetes cluster. It writes the trust bundles of Entente where custom
resources of the kinds BundlePublication and ClusterBundlePublication say, keeps them up to date, and removes those
whose trust has ended.

The controller needs a role "reader" in Entente, and in Kubernetes the rights in deploy/kubernetes.`,
		Example: `  entente-kubernetes --address eu-1.example.org:7440 \
    --workload-socket /run/entente-agent/public/api.sock
  entente-kubernetes --address eu-1.example.org:7440 --cert svid.pem --key svid.key --bundle bundle.pem \
    --kubeconfig ~/.kube/config --namespace entente`,
		Version: version, Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), stderr) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.addresses, "address", nil, "`HOST:PORT` of the cluster port of members")
	f.StringVar(&o.workloadSocket, "workload-socket", "",
		"`PATH` of the socket of the Workload API, which gives the SVID")
	f.StringVar(&o.home, "home", "",
		"home trust `DOMAIN` of the cluster, with --workload-socket (default: the SVID's own)")
	f.StringVar(&o.certFile, "cert", "", "`FILE` with the SVID, instead of --workload-socket")
	f.StringVar(&o.keyFile, "key", "", "`FILE` with its private key")
	f.StringVar(&o.roots, "bundle", "", "`FILE` with the bundle of the cluster's home trust domain")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig `FILE` (default: the service account of the pod)")
	f.StringVar(&o.namespace, "namespace", "", "`NAMESPACE` of the Lease (default: that of the pod)")
	f.StringSliceVar(&o.secretNamespaces, "secret-namespaces", nil, "`NAMESPACES` that Secrets may be written in "+
		"(default: none)")
	f.StringVar(&o.healthListen, "health-listen", ":8081", "`HOST:PORT` of /healthz and /readyz; empty for none")
	f.StringVar(&o.metricListen, "metrics-listen", "127.0.0.1:8080", "`HOST:PORT` of /metrics; empty for none")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	return cmd
}

func (o options) run(ctx context.Context, stderr io.Writer) error {
	log, err := o.logger(stderr)
	if err != nil {
		return err
	}
	cluster, err := o.cluster()
	if err != nil {
		return err
	}
	entente, closeAll, err := o.entente(ctx)
	if err != nil {
		return err
	}
	defer closeAll()
	runtimelog.SetLogger(logr.FromSlogHandler(log.Handler()))
	klog.SetSlogLogger(log)
	log.Info("controller starts", "version", version)
	return kubernetes.Run(ctx, kubernetes.Config{
		Kubernetes: cluster, Entente: entente, Namespace: o.namespace, SecretNamespaces: o.secretNamespaces,
		HealthListen: o.healthListen, MetricsListen: o.metricListen, Log: log,
	})
}

func (o options) logger(stderr io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level is %q: write debug, info, warn or error", o.logLevel)
	}
	switch o.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})), nil
	case "json":
		return slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level})), nil
	}
	return nil, fmt.Errorf("--log-format is %q: write text or json", o.logFormat)
}

// cluster returns the connection to the API server.
func (o options) cluster() (cfg *rest.Config, err error) {
	if o.kubeconfig == "" {
		if cfg, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("find the API server: %w: give --kubeconfig outside of a pod", err)
		}
	} else if cfg, err = clientcmd.BuildConfigFromFlags("", o.kubeconfig); err != nil {
		return nil, fmt.Errorf("read --kubeconfig: %w", err)
	}
	cfg.QPS = -1 // the API server limits its clients by itself: priority and fairness
	cfg.UserAgent = "entente-kubernetes/" + version
	return cfg, nil
}

// entente returns the client of Entente, and what closes it.
func (o options) entente(ctx context.Context) (*client.Client, func(), error) {
	if len(o.addresses) == 0 {
		return nil, nil, errors.New("--address is missing: name the members of the cluster by HOST:PORT")
	}
	files := o.certFile != "" || o.keyFile != "" || o.roots != ""
	switch {
	case files && o.workloadSocket != "":
		return nil, nil, errors.New("--workload-socket and --cert give two identities: use one of them")
	case files:
		c, err := client.New(
			ctx, client.WithAddresses(o.addresses...), client.WithFiles(o.certFile, o.keyFile, o.roots),
		)
		if err != nil {
			return nil, nil, err
		}
		return c, func() { _ = c.Close() }, nil
	case o.workloadSocket == "":
		return nil, nil, errors.New("the controller has no identity: give --workload-socket, or --cert, --key and " +
			"--bundle")
	}
	socket := o.workloadSocket
	if !strings.Contains(socket, "://") {
		socket = "unix://" + socket
	}
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(socket)))
	if err != nil {
		return nil, nil, fmt.Errorf("get an SVID at %s: %w", socket, err)
	}
	home, err := o.homeOf(source)
	if err != nil {
		return nil, nil, errors.Join(err, source.Close())
	}
	c, err := client.New(ctx, client.WithAddresses(o.addresses...), client.WithSource(home, source, source))
	if err != nil {
		return nil, nil, errors.Join(err, source.Close())
	}
	return c, func() { _, _ = c.Close(), source.Close() }, nil
}

// homeOf returns the home trust domain of the cluster.
func (o options) homeOf(source *workloadapi.X509Source) (spiffeid.TrustDomain, error) {
	if o.home != "" {
		return bundle.ParseTrustDomain(o.home)
	}
	svid, err := source.GetX509SVID()
	if err != nil {
		return spiffeid.TrustDomain{}, err
	}
	return svid.ID.TrustDomain(), nil
}
