package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	runtimeclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/kubernetes/api/v1alpha1"
	"github.com/ententehq/entente/kubernetes/publish"
)

// LeaseName is the name of the Lease by which one replica writes.
const LeaseName = "entente-kubernetes"

// Config configures a controller.
type Config struct {
	// Kubernetes is the connection to the API server.
	Kubernetes *rest.Config
	// Entente is the client of Entente, with the controller's identity.
	Entente *client.Client
	// Namespace is the namespace of the Lease. If empty, it is that of the pod.
	Namespace string
	// SecretNamespaces are the namespaces that Secrets may be written in. If empty, none is.
	SecretNamespaces []string
	// HealthListen is HOST:PORT of /healthz and /readyz, and MetricsListen that of /metrics. If empty, there is none.
	HealthListen, MetricsListen string
	Log                         *slog.Logger
}

// Run runs a controller until ctx ends, and then returns nil. It returns an error if it cannot start, if Entente
// refuses the controller, and if the Lease is lost: the process must end then, since another one writes.
func Run(ctx context.Context, cfg Config) error {
	logger := logr.FromSlogHandler(cfg.Log.Handler())
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	follower := publish.NewFollower(cfg.Entente, cfg.Log)
	m, err := ctrl.NewManager(cfg.Kubernetes, manager.Options{
		Scheme: scheme, Logger: logger, Cache: publish.CacheOptions(cfg.SecretNamespaces),
		Client:         runtimeclient.Options{Cache: &runtimeclient.CacheOptions{Unstructured: true}},
		LeaderElection: true, LeaderElectionID: LeaseName, LeaderElectionNamespace: cfg.Namespace,
		LeaderElectionReleaseOnCancel: true,
		HealthProbeBindAddress:        orNone(cfg.HealthListen),
		Metrics:                       server.Options{BindAddress: orNone(cfg.MetricsListen)},
	})
	if err != nil {
		return fmt.Errorf("connect to Kubernetes: %w", err)
	}
	if err := m.Add(follower); err != nil {
		return err
	}
	if err := publish.Setup(m, follower, cfg.SecretNamespaces, cfg.Log); err != nil {
		return err
	}
	if err := m.AddHealthzCheck("ping", func(*http.Request) error { return nil }); err != nil {
		return err
	}
	if err := m.AddReadyzCheck("bundles", func(*http.Request) error {
		if _, ok, broken := follower.Bundles(); !ok {
			return errors.Join(errors.New("the bundles of Entente have not arrived yet"), broken)
		}
		return nil
	}); err != nil {
		return err
	}
	return m.Start(ctx)
}

// orNone returns an address as controller-runtime writes it, where "0" is none.
func orNone(address string) string {
	if address == "" {
		return "0"
	}
	return address
}
