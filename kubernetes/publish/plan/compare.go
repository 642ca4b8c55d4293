package plan

import (
	"fmt"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Owns reports whether an object belongs to a publication: its controller is the publication of this name. The UID is
// not compared, so that a publication that was deleted and made again continues with its objects.
func Owns(owner metav1.OwnerReference, object metav1.Object) bool {
	has := metav1.GetControllerOf(object)
	if has == nil || has.Kind != owner.Kind || has.Name != owner.Name {
		return false
	}
	group, err := schema.ParseGroupVersion(has.APIVersion)
	ours, ourErr := schema.ParseGroupVersion(owner.APIVersion)
	return err == nil && ourErr == nil && group.Group == ours.Group
}

// Foreign returns a sentence about an object that a publication does not own, for its user.
func Foreign(object *unstructured.Unstructured) string {
	name := object.GetName()
	if object.GetNamespace() != "" {
		name = object.GetNamespace() + "/" + name
	}
	who := "was not written by this controller"
	if c := metav1.GetControllerOf(object); c != nil {
		who = fmt.Sprintf("belongs to %s %s", c.Kind, c.Name)
	}
	return fmt.Sprintf("The %s %s exists and %s: delete it, or choose another name.", object.GetKind(), name, who)
}

// UpToDate reports whether an object has everything that is planned for it. Others may have added to it.
func UpToDate(planned, actual *unstructured.Unstructured) bool {
	controller := metav1.GetControllerOf(planned)
	if controller == nil || !slices.ContainsFunc(actual.GetOwnerReferences(), func(r metav1.OwnerReference) bool {
		return r.UID == controller.UID && r.Controller != nil && *r.Controller
	}) {
		return false
	}
	for field, value := range planned.Object {
		if field == "metadata" {
			continue
		}
		if !contains(value, actual.Object[field]) {
			return false
		}
	}
	return containsText(planned.GetLabels(), actual.GetLabels()) &&
		containsText(planned.GetAnnotations(), actual.GetAnnotations())
}

func containsText(planned, actual map[string]string) bool {
	for key, value := range planned {
		if has, ok := actual[key]; !ok || has != value {
			return false
		}
	}
	return true
}

// contains reports whether actual has all of planned. An empty map that was planned need not exist.
func contains(planned, actual any) bool {
	want, ok := planned.(map[string]any)
	if !ok {
		return reflect.DeepEqual(planned, actual)
	}
	have, ok := actual.(map[string]any)
	if !ok {
		return actual == nil && len(want) == 0
	}
	for key, value := range want {
		if got, ok := have[key]; !ok || !contains(value, got) {
			return false
		}
	}
	return true
}

// Name is what tells the objects of a cluster apart.
type Name struct {
	schema.GroupKind
	Namespace, Name string
}

// NameOf returns the name of an object.
func NameOf(o *unstructured.Unstructured) Name {
	return Name{o.GroupVersionKind().GroupKind(), o.GetNamespace(), o.GetName()}
}

// ByName returns objects by their names.
func ByName(objects []*unstructured.Unstructured) map[Name]*unstructured.Unstructured {
	m := make(map[Name]*unstructured.Unstructured, len(objects))
	for _, o := range objects {
		m[NameOf(o)] = o
	}
	return m
}

// Stale returns the objects of a publication that are not planned any more.
func Stale(planned, owned []*unstructured.Unstructured) (stale []*unstructured.Unstructured) {
	wanted := ByName(planned)
	for _, o := range owned {
		if wanted[NameOf(o)] == nil {
			stale = append(stale, o)
		}
	}
	return stale
}
