package publish

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/ententehq/entente/kubernetes/publish/plan"
)

// kinds are the kinds of objects that a controller watches. A kind is watched from when it can be: its definition may
// be installed later, and the right to read it granted later.
type kinds struct {
	controller controller.Controller
	cache      cache.Cache
	live       client.Reader
	mapper     meta.RESTMapper
	owner      handler.EventHandler
	// namespaces limits Secrets.
	namespaces []string

	mu      sync.Mutex
	watched []schema.GroupVersionKind
	retry   time.Time // of tryAll
}

// watch starts to watch a kind, unless it is watched. It returns why the kind cannot be read, since an informer would
// not: it would retry in silence.
func (k *kinds) watch(ctx context.Context, kind schema.GroupVersionKind) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.Contains(k.watched, kind) || kind.Kind == "" || kind == plan.Secret && len(k.namespaces) == 0 {
		return nil
	}
	if _, err := k.mapper.RESTMapping(kind.GroupKind(), kind.Version); err != nil {
		return err
	}
	in := []string{metav1.NamespaceAll}
	if kind == plan.Secret {
		in = k.namespaces
	}
	for _, namespace := range in {
		if err := k.live.List(ctx, listOf(kind), client.InNamespace(namespace), client.Limit(1),
			client.MatchingLabels{plan.ManagedByLabel: plan.Manager}); err != nil {
			return fmt.Errorf("list objects of the kind %s: %w", kind.Kind, err)
		}
	}
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(kind)
	if err := k.controller.Watch(source.Kind[client.Object](k.cache, object, k.owner)); err != nil {
		return fmt.Errorf("watch objects of the kind %s: %w", kind.Kind, err)
	}
	k.watched = append(k.watched, kind)
	return nil
}

// retryWatches is how often [kinds.tryAll] tries again what failed.
const retryWatches = time.Minute

// tryAll starts to watch what can be watched of the kinds: what an earlier process wrote is seen, whatever the
// publications name today.
func (k *kinds) tryAll(ctx context.Context, now time.Time, all ...schema.GroupVersionKind) {
	k.mu.Lock()
	due := !now.Before(k.retry)
	if due {
		k.retry = now.Add(retryWatches)
	}
	k.mu.Unlock()
	if !due {
		return
	}
	for _, kind := range all {
		_ = k.watch(ctx, kind) // returned to the publication that needs the kind
	}
}

// owned returns the objects of the watched kinds that belong to a publication.
func (k *kinds) owned(
	ctx context.Context, reader client.Reader, owner metav1.OwnerReference, namespace string,
) (owned []*unstructured.Unstructured, err error) {
	k.mu.Lock()
	watched := slices.Clone(k.watched)
	k.mu.Unlock()
	for _, kind := range watched {
		if kind == plan.Secret && namespace != "" && !slices.Contains(k.namespaces, namespace) {
			continue // nothing was written there, and the cache has no such namespace
		}
		list := listOf(kind)
		if err := reader.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return nil, fmt.Errorf("list objects of the kind %s: %w", kind.Kind, err)
		}
		for i := range list.Items {
			if plan.Owns(owner, &list.Items[i]) {
				owned = append(owned, &list.Items[i])
			}
		}
	}
	return owned, nil
}

func listOf(kind schema.GroupVersionKind) *unstructured.UnstructuredList {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	return list
}
