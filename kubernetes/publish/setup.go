package publish

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/ententehq/entente/kubernetes/api/v1alpha1"
	"github.com/ententehq/entente/kubernetes/publish/plan"
)

const (
	// firstRetry and lastRetry bound the wait after a failure. Nothing reports that a right was granted, or that an
	// object of somebody else is gone.
	firstRetry, lastRetry = 100 * time.Millisecond, 30 * time.Second
	// concurrent is how many publications are reconciled at a time.
	concurrent = 4
	// reconcileTimeout bounds one reconciliation: an API server that hangs must not hold up the others.
	reconcileTimeout = 2 * time.Minute
)

// CacheOptions returns what the manager's cache must hold: publications and namespaces, and of other kinds what the
// controller wrote. Secrets are read in secretNamespaces alone.
func CacheOptions(secretNamespaces []string) cache.Options {
	all := cache.ByObject{Label: labels.Everything()}
	o := cache.Options{
		DefaultLabelSelector: labels.SelectorFromSet(labels.Set{plan.ManagedByLabel: plan.Manager}),
		ByObject: map[client.Object]cache.ByObject{
			&v1alpha1.BundlePublication{}: all, &v1alpha1.ClusterBundlePublication{}: all, namespace(): all,
		},
	}
	if len(secretNamespaces) > 0 {
		in := map[string]cache.Config{}
		for _, n := range secretNamespaces {
			in[n] = cache.Config{}
		}
		secret := &unstructured.Unstructured{}
		secret.SetGroupVersionKind(plan.Secret)
		o.ByObject[secret] = cache.ByObject{Namespaces: in}
	}
	return o
}

// Setup adds the reconcilers of publications to a manager.
func Setup(m manager.Manager, f *Follower, secretNamespaces []string, log *slog.Logger) error {
	for _, kind := range []struct {
		name  string
		empty func() plan.Publication
		list  func() client.ObjectList
	}{
		{
			"bundlepublication", func() plan.Publication { return &v1alpha1.BundlePublication{} },
			func() client.ObjectList { return &v1alpha1.BundlePublicationList{} },
		},
		{
			"clusterbundlepublication", func() plan.Publication { return &v1alpha1.ClusterBundlePublication{} },
			func() client.ObjectList { return &v1alpha1.ClusterBundlePublicationList{} },
		},
	} {
		r := &reconciler{
			client: m.GetClient(), live: m.GetAPIReader(), follower: f, secrets: secretNamespaces, empty: kind.empty,
			now: time.Now,
			kinds: &kinds{
				cache: m.GetCache(), live: m.GetAPIReader(), mapper: m.GetRESTMapper(), namespaces: secretNamespaces,
				owner: handler.EnqueueRequestForOwner(
					m.GetScheme(), m.GetRESTMapper(), kind.empty(), handler.OnlyControllerOwner(),
				),
			},
		}
		everything := requests{reader: m.GetClient(), list: kind.list, log: log}
		b := builder.ControllerManagedBy(m).Named(kind.name).
			For(kind.empty(), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
			WithOptions(controller.Options{
				SkipNameValidation:      new(true), // tests run several controllers in a process
				MaxConcurrentReconciles: concurrent, ReconciliationTimeout: reconcileTimeout,
				RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](
					firstRetry, lastRetry,
				),
			}).
			WatchesRawSource(source.Func(everything.after(f.subscribe())))
		if kind.empty().PublicationKind() == "ClusterBundlePublication" {
			b = b.WatchesMetadata(namespace(), handler.EnqueueRequestsFromMapFunc(
				func(ctx context.Context, _ client.Object) []reconcile.Request { return everything.all(ctx) },
			), builder.WithPredicates(predicate.LabelChangedPredicate{}))
		}
		c, err := b.Build(r)
		if err != nil {
			return fmt.Errorf("set up the controller %s: %w", kind.name, err)
		}
		r.kinds.controller = c
	}
	return nil
}

// requests makes requests for all publications of a kind.
type requests struct {
	reader client.Reader
	list   func() client.ObjectList
	log    *slog.Logger
}

func (q requests) all(ctx context.Context) (all []reconcile.Request) {
	list := q.list()
	if err := q.reader.List(ctx, list); err != nil {
		if ctx.Err() == nil {
			q.log.Error("publications cannot be listed", "error", err)
		}
		return nil
	}
	add := func(o client.Object) {
		all = append(all, reconcile.Request{
			NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()},
		})
	}
	switch list := list.(type) {
	case *v1alpha1.BundlePublicationList:
		for i := range list.Items {
			add(&list.Items[i])
		}
	case *v1alpha1.ClusterBundlePublicationList:
		for i := range list.Items {
			add(&list.Items[i])
		}
	}
	return all
}

// after returns a source that requests all publications after each change. Its goroutine ends with the controller.
func (q requests) after(
	changed <-chan struct{},
) func(context.Context, workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	return func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		go func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-changed:
				}
				for _, request := range q.all(ctx) {
					queue.Add(request)
				}
			}
		}()
		return nil
	}
}

func namespace() *metav1.PartialObjectMetadata {
	n := &metav1.PartialObjectMetadata{}
	n.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"})
	return n
}
