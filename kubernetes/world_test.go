package kubernetes_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	runtimeclient "sigs.k8s.io/controller-runtime/pkg/client"
	runtimelog "sigs.k8s.io/controller-runtime/pkg/log"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/kubernetes"
	"github.com/ententehq/entente/kubernetes/kubetest"
	"github.com/ententehq/entente/node/nodetest"
)

// patience is far longer than anything here takes on a busy machine.
const patience = 5 * time.Minute

const home = "dev.example.org"

// world is a Kubernetes cluster with a controller, and the Entente cluster that it belongs to.
type world struct {
	server *kubetest.Server
	admin  *client.Client       // of Entente
	api    runtimeclient.Client // of Kubernetes, as the administrator
	lost   chan struct{}        // has a value after the controller ended by itself
}

// newWorld starts everything. The controller has the rights of the manifests, and Secrets in the namespace "secrets".
func newWorld(t *testing.T) *world {
	t.Helper()
	runtimelog.SetLogger(logr.Discard()) // the manager has a logger of its own
	w := &world{server: kubetest.Start(t), lost: make(chan struct{}, 1)}
	var err error
	w.api, err = runtimeclient.New(w.server.Config(t), runtimeclient.Options{Scheme: runtime.NewScheme()})
	require.NoError(t, err)
	member, err := nodetest.Start()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, member.Close()) })
	w.admin, err = client.New(t.Context(), client.WithAdminSocket(member.Socket))
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.admin.Close() })

	w.server.Kubectl(t, "", "apply", "-f", "../deploy/crds", "-f", "../deploy/kubernetes")
	w.server.Kubectl(t, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout="+patience.String())
	w.server.Kubectl(t, "", "create", "namespace", "secrets")
	w.server.Kubectl(t, "", "create", "rolebinding", "entente", "--namespace=secrets",
		"--clusterrole=entente-kubernetes-secrets", "--serviceaccount=entente:entente-kubernetes")
	w.run(t, member)
	return w
}

// run runs the controller as the kubelet does: when it ends, it is started again after a while.
func (w *world) run(t *testing.T, member *nodetest.Member) {
	t.Helper()
	id := spiffeid.RequireFromString("spiffe://" + home + "/kubernetes")
	_, err := w.admin.Access().GrantRole(t.Context(), &ententev1.GrantRoleRequest{Grant: &ententev1.Grant{
		Role: ententev1.Role_ROLE_READER, SpiffeId: id.String(),
	}})
	require.NoError(t, err)
	source, err := client.NewX509Source(t.Context(), w.admin, client.X509SourceConfig{ID: id})
	require.NoError(t, err)
	entente, err := client.New(t.Context(), client.WithAddresses(member.Address),
		client.WithSource(id.TrustDomain(), source, source))
	require.NoError(t, err)
	cluster := w.server.Account(t, "entente", "entente-kubernetes")
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	output := &lines{t: t}
	log := slog.New(slog.NewTextHandler(output, nil))
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if err := kubernetes.Run(ctx, kubernetes.Config{
				Kubernetes: cluster, Entente: entente, Namespace: "entente", SecretNamespaces: []string{"secrets"},
				Log: log,
			}); err != nil {
				log.Warn("controller ended", "error", err)
				select {
				case w.lost <- struct{}{}:
				default:
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		output.end()
		_ = entente.Close()
		_ = source.Close()
	})
}

// lines writes to the log of a test, until the test ends: goroutines of the controller can outlive it for a moment.
type lines struct {
	t *testing.T

	mu    sync.Mutex
	ended bool
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.t.Log(strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}

func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}

// host makes Entente the authority of a trust domain, and returns its bundle when it has X.509 authorities.
func (w *world) host(t *testing.T, domain string) *bundle.Bundle {
	t.Helper()
	_, err := w.admin.Domains().CreateDomain(t.Context(), &ententev1.CreateDomainRequest{
		Domain: &ententev1.Domain{TrustDomain: domain},
	})
	require.NoError(t, err)
	var b *bundle.Bundle
	until(t, "authorities of "+domain, func() bool {
		_, err := w.admin.Bundles().GetBundle(t.Context(), &ententev1.GetBundleRequest{TrustDomain: domain})
		if errors.Is(err, client.ErrNotFound) { // it has none yet
			return false
		}
		b = w.bundle(t, domain)
		return len(b.X509Authorities()) > 0 && len(b.JWTAuthorities()) > 0
	})
	return b
}

// bundle returns the present bundle of a trust domain.
func (w *world) bundle(t *testing.T, domain string) *bundle.Bundle {
	t.Helper()
	m, err := w.admin.Bundles().GetBundle(t.Context(), &ententev1.GetBundleRequest{TrustDomain: domain})
	require.NoError(t, err)
	b, _, err := bundle.Parse(spiffeid.RequireTrustDomainFromString(domain), m.GetDocument())
	require.NoError(t, err)
	return b
}

// end ends the trust in a domain.
func (w *world) end(t *testing.T, domain string) {
	t.Helper()
	_, err := w.admin.Domains().DeleteDomain(t.Context(), &ententev1.DeleteDomainRequest{TrustDomain: domain})
	require.NoError(t, err)
}

// apply applies a manifest as a user does, and removes it at the end of the test.
func (w *world) apply(t *testing.T, manifest string) {
	t.Helper()
	w.server.Kubectl(t, manifest, "apply", "-f", "-")
	t.Cleanup(func() { w.server.KubectlAfter(manifest, "delete", "--ignore-not-found", "-f", "-") })
}

var (
	configMap    = schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	secret       = schema.GroupVersionKind{Version: "v1", Kind: "Secret"}
	trustBundle  = schema.GroupVersionKind{Group: "certificates.k8s.io", Version: "v1", Kind: "ClusterTrustBundle"}
	publication  = schema.GroupVersionKind{Group: "entente.io", Version: "v1alpha1", Kind: "BundlePublication"}
	publications = schema.GroupVersionKind{Group: "entente.io", Version: "v1alpha1", Kind: "ClusterBundlePublication"}
	federated    = schema.GroupVersionKind{
		Group: "spire.spiffe.io", Version: "v1alpha1", Kind: "ClusterFederatedTrustDomain",
	}
)

// get returns an object, or nil if it does not exist.
func (w *world) get(t *testing.T, kind schema.GroupVersionKind, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(kind)
	err := w.api.Get(t.Context(), runtimeclient.ObjectKey{Namespace: namespace, Name: name}, o)
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(t, err)
	return o
}

// data returns the data of a ConfigMap or a Secret, or nil if it does not exist.
func (w *world) data(t *testing.T, kind schema.GroupVersionKind, namespace, name string) map[string]string {
	t.Helper()
	o := w.get(t, kind, namespace, name)
	if o == nil {
		return nil
	}
	data, _, err := unstructured.NestedStringMap(o.Object, "data")
	require.NoError(t, err)
	if data == nil {
		data = map[string]string{}
	}
	return data
}

// awaitCondition waits until the condition Published of a publication has a reason, and returns its message.
func (w *world) awaitCondition(
	t *testing.T, kind schema.GroupVersionKind, namespace, name, reason string,
) (message string) {
	t.Helper()
	last := "no condition"
	until(t, name+" has the reason "+reason, func() bool {
		o := w.get(t, kind, namespace, name)
		require.NotNil(t, o)
		conditions, _, err := unstructured.NestedSlice(o.Object, "status", "conditions")
		require.NoError(t, err)
		for _, c := range conditions {
			condition, ok := c.(map[string]any)
			require.True(t, ok)
			if condition["type"] != "Published" {
				continue
			}
			message, ok = condition["message"].(string)
			require.True(t, ok)
			last = message
			require.Equal(t, condition["reason"] == "Published", condition["status"] == "True")
			if condition["observedGeneration"] == o.GetGeneration() && condition["reason"] == reason {
				return true
			}
		}
		return false
	}, &last)
	return message
}

// until polls a condition. what describes it, and details are printed if it never holds.
func until(t *testing.T, what string, holds func() bool, details ...*string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			for _, d := range details {
				t.Log(*d)
			}
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// in puts a namespace into a manifest.
func in(manifest, namespace string) string {
	return strings.ReplaceAll(manifest, "NAMESPACE", namespace)
}

// entry reports whether an entry of a status is about a bundle.
func entry(t *testing.T, e any, domain string, b *bundle.Bundle, sequence uint64) bool {
	t.Helper()
	m, ok := e.(map[string]any)
	require.True(t, ok)
	require.NotEmpty(t, m["since"])
	return m["trustDomain"] == domain && m["digest"] == fmt.Sprintf("%x", b.Digest()) &&
		m["sequence"] == strconv.FormatUint(sequence, 10)
}
