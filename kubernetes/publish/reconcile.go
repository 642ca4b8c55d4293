package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ententehq/entente/kubernetes/api/v1alpha1"
	"github.com/ententehq/entente/kubernetes/publish/plan"
)

// errForeign is the end of an error about an object that the controller did not make.
var errForeign = errors.New("not an object of this publication")

// atOnce bounds the writes of a publication that are under way: a change of a bundle can concern a thousand namespaces.
const atOnce = 16

// reconciler brings the objects of publications of one kind to what they should be.
type reconciler struct {
	client   client.Client // reads from the cache
	live     client.Reader
	follower *Follower
	kinds    *kinds
	secrets  []string // namespaces that Secrets may be written in
	empty    func() plan.Publication
	now      func() time.Time
}

// Reconcile implements the interface of controller-runtime.
func (r *reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	bundles, ok, broken := r.follower.Bundles()
	if !ok {
		return reconcile.Result{}, nil // every publication follows when the bundles have arrived
	}
	r.kinds.tryAll(ctx, r.now(), plan.ConfigMap, plan.Secret, plan.FederatedDomain, r.trustBundles())
	p := r.empty()
	err := r.client.Get(ctx, request.NamespacedName, p)
	if apierrors.IsNotFound(err) {
		p.SetName(request.Name)
		p.SetNamespace(request.Namespace)
		publishedGauge.DeleteLabelValues(p.PublicationKind(), request.Namespace, request.Name)
		return reconcile.Result{}, r.removeAll(ctx, p)
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	if p.GetDeletionTimestamp() != nil {
		return reconcile.Result{}, nil // something else holds it; what it wrote stays until it is gone
	}
	in := plan.Input{Bundles: bundles, SecretNamespaces: r.secrets, TrustBundles: r.trustBundles()}
	before, ok := p.DeepCopyObject().(client.Object)
	if !ok {
		return reconcile.Result{}, fmt.Errorf("copy of %T", p)
	}
	o := r.publish(ctx, p, in)
	o.status(p.PublicationStatus(), p.GetGeneration(), broken, r.now())
	published := 0.0
	if len(o.problems) == 0 {
		published = 1
	}
	publishedGauge.WithLabelValues(p.PublicationKind(), request.Namespace, request.Name).Set(published)
	if !equality.Semantic.DeepEqual(before, p) {
		if err := r.client.Status().Patch(ctx, p, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, fmt.Errorf("write the status: %w", err)
		}
	}
	if o.failed() {
		return reconcile.Result{}, errors.New(o.text())
	}
	return reconcile.Result{}, nil
}

// trustBundles returns the newest kind of cluster trust bundles that the API server serves, or none.
func (r *reconciler) trustBundles() schema.GroupVersionKind {
	mapping, err := r.kinds.mapper.RESTMapping(plan.ClusterTrustBundle, "v1", "v1beta1")
	if err != nil {
		return schema.GroupVersionKind{}
	}
	return mapping.GroupVersionKind
}

// publish writes what is planned and removes what is not.
func (r *reconciler) publish(ctx context.Context, p plan.Publication, in plan.Input) (o outcome) {
	fail := func(err error) outcome {
		o.problems = append(o.problems, problemOf(err))
		return o
	}
	switch p := p.(type) {
	case *v1alpha1.BundlePublication:
		o.plan = plan.Namespaced(p, in)
	case *v1alpha1.ClusterBundlePublication:
		var err error
		if in.Namespaces, err = r.namespaces(ctx, p); err != nil {
			return fail(err)
		}
		if p.Spec.ClusterTrustBundle != nil && in.TrustBundles.Kind == "" {
			_, err := r.kinds.mapper.RESTMapping(plan.ClusterTrustBundle, "v1", "v1beta1")
			return fail(err)
		}
		o.plan = plan.Cluster(p, in)
	}
	for _, text := range o.plan.Refusals {
		o.problems = append(o.problems, problem{v1alpha1.ReasonRefused, text})
	}
	if err := r.kinds.watch(ctx, o.plan.Kind); err != nil {
		return fail(err)
	}
	owner := plan.OwnerOf(p)
	owned, err := r.kinds.owned(ctx, r.client, owner, p.GetNamespace())
	if err != nil {
		return fail(err)
	}
	var mu sync.Mutex
	done := func(err error) error {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			fail(err)
		} else {
			o.changed = true
		}
		return nil // the others go on
	}
	var writes errgroup.Group
	writes.SetLimit(atOnce)
	for _, s := range plan.Stale(o.plan.Objects, owned) { // first: trust that has ended
		writes.Go(func() error { return done(r.remove(ctx, s)) })
	}
	exists := plan.ByName(owned)
	for _, planned := range o.plan.Objects {
		actual := exists[plan.NameOf(planned)]
		if actual == nil || !plan.UpToDate(planned, actual) {
			writes.Go(func() error { return done(r.apply(ctx, owner, planned, actual)) })
		}
	}
	_ = writes.Wait()
	slices.SortFunc(o.problems, compareProblems)
	return o
}

// apply writes an object. actual is what the cache has of it for this publication, or nil.
func (r *reconciler) apply(
	ctx context.Context, owner metav1.OwnerReference, planned, actual *unstructured.Unstructured,
) (err error) {
	defer func() { count("apply", planned.GetKind(), err) }()
	if actual == nil { // the cache has no object of others
		found := &unstructured.Unstructured{}
		found.SetGroupVersionKind(planned.GroupVersionKind())
		err := r.live.Get(ctx, client.ObjectKeyFromObject(planned), found)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return err
		case !plan.Owns(owner, found):
			return fmt.Errorf("%s: %w", plan.Foreign(found), errForeign)
		default:
			actual = found
		}
	}
	written := planned.DeepCopy()
	options := []client.ApplyOption{client.FieldOwner(plan.Manager)}
	if actual != nil { // another object of the same name would be a conflict
		written.SetUID(actual.GetUID())
		options = append(options, client.ForceOwnership)
	}
	return r.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(written), options...)
}

// remove deletes an object, unless it was made again meanwhile.
func (r *reconciler) remove(ctx context.Context, object *unstructured.Unstructured) error {
	uid := object.GetUID()
	err := client.IgnoreNotFound(r.client.Delete(ctx, object, client.Preconditions{UID: &uid}))
	count("delete", object.GetKind(), err)
	return err
}

// removeAll deletes what a publication left that is gone. The garbage collector does so too, some seconds later.
func (r *reconciler) removeAll(ctx context.Context, p plan.Publication) error {
	owned, err := r.kinds.owned(ctx, r.client, plan.OwnerOf(p), p.GetNamespace())
	for _, object := range owned {
		err = errors.Join(err, r.remove(ctx, object))
	}
	return err
}

// namespaces returns the namespaces that a publication selects, without those of Kubernetes itself: the policy in
// deploy/kubernetes keeps the controller out of them.
func (r *reconciler) namespaces(ctx context.Context, p *v1alpha1.ClusterBundlePublication) (names []string, err error) {
	spread := p.Spec.ConfigMap
	if spread == nil {
		spread = p.Spec.Secret
	}
	if spread == nil {
		return nil, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(&spread.NamespaceSelector)
	if err != nil {
		return nil, err
	}
	list := namespaceList()
	if err := r.client.List(ctx, list); err != nil {
		return nil, err
	}
	for _, n := range list.Items {
		if n.DeletionTimestamp == nil && !strings.HasPrefix(n.Name, "kube-") && selector.Matches(labels.Set(n.Labels)) {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

func namespaceList() *metav1.PartialObjectMetadataList {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "NamespaceList"})
	return list
}
